# SPDX-License-Identifier: Apache-2.0
"""Who wrote the catalogue's papers, and where they appeared: what `xloss.cite` needs beside a row.

Keyed by arXiv id, or by title where there is none. Authors as BibTeX wants them; "VENUE YEAR", or
the year alone for what is on arXiv only. Loaded by the first citation, not by `import xloss`.
"""

#: arXiv id or title -> (authors, venue and year)
PAPERS: dict[str, tuple[str, str]] = {
    "1512.00567": (
        "Szegedy, Christian and Vanhoucke, Vincent and Ioffe, Sergey and Shlens, Jon and "
        "Wojna, Zbigniew",
        "CVPR 2016",
    ),
    "1710.09412": (
        "Zhang, Hongyi and Cisse, Moustapha and Dauphin, Yann N. and Lopez-Paz, David",
        "ICLR 2018",
    ),
    "2304.07288": ("Mao, Anqi and Mohri, Mehryar and Zhong, Yutao", "ICML 2023"),
    "1805.07836": ("Zhang, Zhilu and Sabuncu, Mert R.", "NeurIPS 2018"),
    "1908.06112": (
        "Wang, Yisen and Ma, Xingjun and Chen, Zaiyi and Luo, Yuan and Yi, Jinfeng and "
        "Bailey, James",
        "ICCV 2019",
    ),
    "1712.09482": ("Ghosh, Aritra and Kumar, Himanshu and Sastry, P. S.", "AAAI 2017"),
    "2105.04522": ("Englesson, Erik and Azizpour, Hossein", "NeurIPS 2021"),
    "2006.13554": (
        "Ma, Xingjun and Huang, Hanxun and Wang, Yisen and Romano, Simone and Erfani, Sarah and "
        "Bailey, James",
        "ICML 2020",
    ),
    "2106.03110": (
        "Zhou, Xiong and Liu, Xianming and Jiang, Junjun and Gao, Xin and Ji, Xiangyang",
        "ICML 2021",
    ),
    "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines": (
        "Crammer, Koby and Singer, Yoram",
        "JMLR 2001",
    ),
    "Support Vector Machines for Multi-Class Pattern Recognition": (
        "Weston, Jason and Watkins, Chris",
        "ESANN 1999",
    ),
    "Verification of Forecasts Expressed in Terms of Probability": (
        "Brier, Glenn W.",
        "Monthly Weather Review 1950",
    ),
    "2107.09957": ("Patel, Deep and Sastry, P. S.", "PAKDD 2021"),
    "2112.14869": ("Zhu, Dixian and Ying, Yiming and Yang, Tianbao", "ICML 2023"),
    "1708.02002": (
        "Lin, Tsung-Yi and Goyal, Priya and Girshick, Ross and He, Kaiming and Dollár, Piotr",
        "ICCV 2017",
    ),
    "2204.12511": (
        "Leng, Zhaoqi and Tan, Mingxing and Liu, Chenxi and Cubuk, Ekin Dogus and Shi, Jay and "
        "Cheng, Shuyang and Anguelov, Dragomir",
        "ICLR 2022",
    ),
    "2310.10636": (
        "Gupta, Nilesh and Khatri, Devvrit and Rawat, Ankit S. and Bhojanapalli, Srinadh and "
        "Jain, Prateek and Dhillon, Inderjit S.",
        "ICLR 2024",
    ),
    "2309.14322": (
        "Wortsman, Mitchell and Liu, Peter J. and Xiao, Lechao and Everett, Katie and "
        "Alemi, Alex and Adlam, Ben and Co-Reyes, John D. and Gur, Izzeddin and Kumar, Abhishek "
        "and Novak, Roman and Pennington, Jeffrey and Sohl-Dickstein, Jascha and Xu, Kelvin and "
        "Lee, Jaehoon and Gilmer, Justin and Kornblith, Simon",
        "ICLR 2024",
    ),
    "Convexity, Classification, and Risk Bounds": (
        "Bartlett, Peter L. and Jordan, Michael I. and McAuliffe, Jon D.",
        "JASA 2006",
    ),
    "2409.00908": ("Dai, Ben", "ICML 2025"),
    "1604.08859": ("de Brébisson, Alexandre and Vincent, Pascal", "2016"),
    "1511.05042": ("de Brébisson, Alexandre and Vincent, Pascal", "ICLR 2016"),
    "2502.01628": (
        "Baek, David D. and Liu, Ziming and Tyagi, Riya and Tegmark, Max",
        "TMLR 2025",
    ),
    "1901.08573": (
        "Zhang, Hongyang and Yu, Yaodong and Jiao, Jiantao and Xing, Eric P. and "
        "El Ghaoui, Laurent and Jordan, Michael I.",
        "ICML 2019",
    ),
    "Improving Adversarial Robustness Requires Revisiting Misclassified Examples": (
        "Wang, Yisen and Zou, Difan and Yi, Jinfeng and Bailey, James and Ma, Xingjun and "
        "Gu, Quanquan",
        "ICLR 2020",
    ),
    "1706.06083": (
        "Madry, Aleksander and Makelov, Aleksandar and Schmidt, Ludwig and Tsipras, Dimitris and "
        "Vladu, Adrian",
        "ICLR 2018",
    ),
    "2603.10225": (
        "Miller-Golub, Maxwell and Coil, Collin and Faber, Kamil and Pietron, Marcin and "
        "Zheng, Panpan and Minervini, Pasquale and Corizzo, Roberto",
        "2026",
    ),
    "2411.09009": (
        "Wijmans, Erik and Huval, Brody and Hertzberg, Alexander and Koltun, Vladlen and "
        "Krähenbühl, Philipp",
        "ICLR 2025",
    ),
    "2410.10989": (
        "Hsu, Pin-Lun and Dai, Yun and Kothapalli, Vignesh and Song, Qingquan and Tang, Shao and "
        "Zhu, Siyu and Shimizu, Steven and Sahni, Shivam and Ning, Haowen and Chen, Yanning",
        "2024",
    ),
    "2502.07154": (
        "Chen, Feng and Raventós, Allan and Cheng, Nan and Ganguli, Surya and Druckmann, Shaul",
        "NeurIPS 2025",
    ),
    "1911.02855": (
        "Li, Xiaoya and Sun, Xiaofei and Meng, Yuxian and Liang, Junjun and Wu, Fei and Li, Jiwei",
        "ACL 2020",
    ),
    "2405.14745": ("Han, Doheon and Moniz, Nuno and Chawla, Nitesh V.", "KDD 2024"),
    "2101.06983": (
        "Gao, Luyu and Zhang, Yunyi and Han, Jiawei and Callan, Jamie",
        "RepL4NLP 2021",
    ),
    "1412.2007": (
        "Jean, Sébastien and Cho, Kyunghyun and Memisevic, Roland and Bengio, Yoshua",
        "ACL 2015",
    ),
    "1412.7091": (
        "Vincent, Pascal and de Brébisson, Alexandre and Bouthillier, Xavier",
        "NIPS 2015",
    ),
    "2302.02334": (
        "Zheng, Chenyu and Wu, Guoqiang and Bao, Fan and Cao, Yue and Li, Chongxuan and Zhu, Jun",
        "ICML 2023",
    ),
    "2308.09878": (
        "Shrivastava, Shubham and Zhang, Xianling and Nagesh, Sushruth and Parchami, Armin",
        "ICCV workshop 2023",
    ),
    "2503.04242": (
        "Dao, Manh Cuong and Nguyen, Phi Le and Truong, Thao Nguyen and Hoang, Trong Nghia",
        "NeurIPS 2024",
    ),
    "2010.01412": (
        "Foret, Pierre and Kleiner, Ariel and Mobahi, Hossein and Neyshabur, Behnam",
        "ICLR 2021",
    ),
    "2102.11600": (
        "Kwon, Jungmin and Kim, Jeongseop and Park, Hyunseo and Choi, In Kwon",
        "ICML 2021",
    ),
    "2203.08065": (
        "Zhuang, Juntang and Gong, Boqing and Yuan, Liangzhe and Cui, Yin and Adam, Hartwig and "
        "Dvornek, Nicha and Tatikonda, Sekhar and Duncan, James and Liu, Ting",
        "ICLR 2022",
    ),
    "2202.03599": ("Zhao, Yang and Zhang, Hao and Hu, Xiuyuan", "ICML 2022"),
    "2206.04920": (
        "Kim, Minyoung and Li, Da and Hu, Shell X. and Hospedales, Timothy",
        "ICML 2022",
    ),
    "2203.02714": (
        "Liu, Yong and Mai, Siqi and Chen, Xiangning and Hsieh, Cho-Jui and You, Yang",
        "CVPR 2022",
    ),
    "2211.13723": (
        "Phan, Hoang and Tran, Lam and Tran, Ngoc N. and Ho, Nhat and Phung, Dinh and Le, Trung",
        "2022",
    ),
    "2201.04122": (
        "Kurin, Vitaly and De Palma, Alessandro and Kostrikov, Ilya and Whiteson, Shimon and "
        "Kumar, M. Pawan",
        "NeurIPS 2022",
    ),
    "1810.04650": ("Sener, Ozan and Koltun, Vladlen", "NeurIPS 2018"),
    "2001.06782": (
        "Yu, Tianhe and Kumar, Saurabh and Gupta, Abhishek and Levine, Sergey and "
        "Hausman, Karol and Finn, Chelsea",
        "NeurIPS 2020",
    ),
    "2110.14048": (
        "Liu, Bo and Liu, Xingchao and Jin, Xiaojie and Stone, Peter and Liu, Qiang",
        "NeurIPS 2021",
    ),
    "Towards Impartial Multi-task Learning": (
        "Liu, Liyang and Li, Yi and Kuang, Zhanghui and Xue, Jing-Hao and Chen, Yimin and "
        "Yang, Wenming and Liao, Qingmin and Zhang, Wayne",
        "ICLR 2021",
    ),
    "2305.19000": (
        "Senushkin, Dmitry and Patakin, Nikolay and Kuznetsov, Arseny and Konushin, Anton",
        "CVPR 2023",
    ),
    "2202.01017": (
        "Navon, Aviv and Shamsian, Aviv and Achituve, Idan and Maron, Haggai and "
        "Kawaguchi, Kenji and Chechik, Gal and Fetaya, Ethan",
        "ICML 2022",
    ),
    "2402.15638": ("Ban, Hao and Ji, Kaiyi", "ICML 2024"),
    "2010.06808": (
        "Chen, Zhao and Ngiam, Jiquan and Huang, Yanping and Luong, Thang and "
        "Kretzschmar, Henrik and Chai, Yuning and Anguelov, Dragomir",
        "NeurIPS 2020",
    ),
    "2406.16232": ("Quinton, Pierre and Rey, Valérian", "2024"),
    "2308.12029": (
        "Lin, Baijiong and Jiang, Weisen and Ye, Feiyang and Zhang, Yu and Chen, Pengguang and "
        "Chen, Ying-Cong and Liu, Shu and Tsang, Ivor W. and Kwok, James T.",
        "2023",
    ),
    "1711.02257": (
        "Chen, Zhao and Badrinarayanan, Vijay and Lee, Chen-Yu and Rabinovich, Andrew",
        "ICML 2018",
    ),
    "1705.07115": ("Kendall, Alex and Gal, Yarin and Cipolla, Roberto", "CVPR 2018"),
    "1803.10704": ("Liu, Shikun and Johns, Edward and Davison, Andrew J.", "CVPR 2019"),
    "2111.10603": (
        "Lin, Baijiong and Ye, Feiyang and Zhang, Yu and Tsang, Ivor W.",
        "TMLR 2022",
    ),
    "1904.08492": (
        "Chennupati, Sumanth and Sistu, Ganesh and Yogamani, Senthil and Rawashdeh, Samir A.",
        "CVPR workshops 2019",
    ),
    "2402.19078": (
        "Lin, Xi and Zhang, Xiaoyuan and Yang, Zhiyuan and Liu, Fei and Wang, Zhenkun and "
        "Zhang, Qingfu",
        "ICML 2024",
    ),
    "2306.03792": ("Liu, Bo and Feng, Yihao and Stone, Peter and Liu, Qiang", "NeurIPS 2023"),
    "2411.07837": (
        "Zmushko, Philip and Beznosikov, Aleksandr and Takáč, Martin and Horváth, Samuel",
        "2024",
    ),
    "2003.01690": ("Croce, Francesco and Hein, Matthias", "ICML 2020"),
    "1912.00049": (
        "Andriushchenko, Maksym and Croce, Francesco and Flammarion, Nicolas and Hein, Matthias",
        "ECCV 2020",
    ),
    "2004.05884": ("Wu, Dongxian and Xia, Shu-Tao and Wang, Yisen", "NeurIPS 2020"),
    "2410.05192": (
        "Wen, Kaiyue and Li, Zhiyuan and Wang, Jason S. and Hall, David Leo Wright and "
        "Liang, Percy and Ma, Tengyu",
        "ICLR 2025",
    ),
    "2203.05482": (
        "Wortsman, Mitchell and Ilharco, Gabriel and Gadre, Samir Ya and Roelofs, Rebecca and "
        "Gontijo-Lopes, Raphael and Morcos, Ari S. and Namkoong, Hongseok and Farhadi, Ali and "
        "Carmon, Yair and Kornblith, Simon and Schmidt, Ludwig",
        "ICML 2022",
    ),
    "1912.02178": (
        "Jiang, Yiding and Neyshabur, Behnam and Mobahi, Hossein and Krishnan, Dilip and "
        "Bengio, Samy",
        "ICLR 2020",
    ),
    "1805.10408": ("Sedghi, Hanie and Gupta, Vineet and Long, Philip M.", "ICLR 2019"),
    "1503.00036": ("Neyshabur, Behnam and Tomioka, Ryota and Srebro, Nathan", "COLT 2015"),
    "2010.11924": (
        "Dziugaite, Gintare Karolina and Drouin, Alexandre and Neal, Brady and "
        "Rajkumar, Nitarshan and Caballero, Ethan and Wang, Linbo and Mitliagkas, Ioannis and "
        "Roy, Daniel M.",
        "NeurIPS 2020",
    ),
    "2309.13658": (
        "Gastpar, Michael and Nachum, Ido and Shafer, Jonathan and Weinberger, Thomas",
        "2023",
    ),
    "H-Consistency Bounds for Surrogate Loss Minimizers": (
        "Awasthi, Pranjal and Mao, Anqi and Mohri, Mehryar and Zhong, Yutao",
        "ICML 2022",
    ),
    "H-Consistency Bounds: Characterization and Extensions": (
        "Mao, Anqi and Mohri, Mehryar and Zhong, Yutao",
        "NeurIPS 2023",
    ),
    "Multi-Class H-Consistency Bounds": (
        "Awasthi, Pranjal and Mao, Anqi and Mohri, Mehryar and Zhong, Yutao",
        "NeurIPS 2022",
    ),
    "On the Consistency of Multiclass Classification Methods": (
        "Tewari, Ambuj and Bartlett, Peter L.",
        "JMLR 2007",
    ),
    "2405.05968": ("Mao, Anqi and Mohri, Mehryar and Zhong, Yutao", "NeurIPS 2024"),
}
