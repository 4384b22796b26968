# SPDX-License-Identifier: Apache-2.0
"""Programs that print a table of times or sizes with the machine and versions they hold for."""
