"""Short articles in eight languages, written for these tests."""

ENGLISH = """Harbour City opens its first tidal power station

The coastal town of Harbour City switched on its first tidal power station on Monday, after six \
years of construction and two changes of contractor. The plant cost $48 million and will supply \
about 12,000 homes with electricity. Mayor Ruth Adeyemi called it the largest investment in the \
history of the town.

Subscribe to our newsletter for more stories like this.

The station uses four turbines on the sea bed, each as tall as a house. They turn when the tide \
comes in and again when it goes out. Engineers from Northwind Energy Group expect the plant to \
run for 40 years. A storm damaged the first turbine in 2021, which delayed the opening by 18 \
months.

Fishermen had opposed the plan because they feared for the crab season. The town agreed to pay \
the fishing cooperatives of the bay $2.1 million over five years, the highest compensation that \
the regional government has ever granted. A study by Harbour City University found that crab \
numbers near the site fell by 4 percent during construction and have since recovered. "We will \
keep counting," said the marine biologist Tom Lindqvist.

Electricity bills in the town are expected to fall by 7 percent next year. Northwind Energy \
Group plans a second station farther up the coast. The council will vote on it in March. Critics \
say that the money would have been better spent on insulation.
"""

INDONESIAN = """Pemerintah Kota Sukamaju meresmikan pasar ikan baru pada hari Senin. Pasar itu \
dibangun selama tiga tahun dengan biaya Rp. 45 miliar. Wali Kota Dr. Rahmat Hidayat berkata \
bahwa pasar ini akan membantu para nelayan. Lebih dari 300 pedagang akan berjualan di sana. Baca \
juga: Harga ikan naik. Para pembeli menyambut baik pembukaan pasar karena tempatnya bersih. \
Harga ikan diperkirakan turun 5 persen pada bulan depan. Namun beberapa pedagang lama khawatir \
sewa kios akan naik."""

GERMAN = """Die Stadt Neuhafen hat am 3. Oktober eine neue Straßenbahnlinie eröffnet. Sie \
verbindet den Bahnhof mit der Universität und kostet rund 90 Mio. Euro. Bürgermeisterin Dr. Anna \
Vogel sprach von einem großen Tag für die Stadt. Die Fahrt dauert nur noch zwölf Minuten. \
Anwohner hatten sich über den Lärm der Baustelle beschwert. Nächstes Jahr soll die Linie bis zum \
Flughafen verlängert werden."""

CHINESE = """滨海市周一启用了第一座潮汐电站。该项目历时六年，投资约三亿元人民币。市长李华说：“这\
是本市历史上最大的一笔投资。”电站将为一万二千户家庭供电。渔民曾经反对这个计划，因为他们担心螃蟹的\
收成。研究人员发现，施工期间螃蟹数量减少了百分之四，后来又恢复了！第二座电站会建在哪里？市议会将\
在三月投票决定。"""

JAPANESE = """港市は月曜日、初めての潮力発電所の運転を始めた。建設には六年かかり、費用は約五十億\
円だった。市長は「市の歴史で最大の投資です。」と述べた。発電所は一万二千世帯に電気を送る。漁師た\
ちはカニの漁が減ることを心配していた。大学の調査では、工事中に数が四パーセント減ったが、その後は\
元に戻った。二つ目の発電所の計画は三月に議会で決まる。"""

THAI = """เมืองท่าเปิดโรงไฟฟ้าพลังน้ำขึ้นน้ำลงแห่งแรกเมื่อวันจันทร์ หลังจากก่อสร้างมานานหกปี \
โครงการนี้ใช้เงินลงทุนกว่าหนึ่งพันล้านบาท \
นายกเทศมนตรีกล่าวว่าเป็นการลงทุนครั้งใหญ่ที่สุดในประวัติศาสตร์ของเมือง \
โรงไฟฟ้าจะจ่ายไฟให้บ้านเรือนหนึ่งหมื่นสองพันหลัง ชาวประมงเคยคัดค้านแผนนี้เพราะกังวลเรื่องปู \
นักวิจัยพบว่าจำนวนปูลดลงในช่วงก่อสร้างแต่ฟื้นตัวแล้ว สภาเมืองจะลงมติเรื่องโรงไฟฟ้าแห่งที่สองในเดือนมีนาคม"""

ARABIC = """افتتحت مدينة الميناء أول محطة للطاقة من المد والجزر يوم الاثنين. استغرق البناء ست \
سنوات وبلغت التكلفة نحو 48 مليون دولار. قالت رئيسة البلدية إن المشروع هو أكبر استثمار في تاريخ \
المدينة. ستزود المحطة 12 ألف منزل بالكهرباء. كان الصيادون قد عارضوا الخطة، لأنهم خافوا على موسم \
السلطعون. هل ستبنى محطة ثانية؟ سيصوت المجلس في شهر مارس."""

RUSSIAN = """В городе Приморске в понедельник открыли первую приливную электростанцию. \
Строительство началось в 2018 г. и обошлось в 4 млрд. рублей. Мэр А. С. Иванова назвала проект \
крупнейшим в истории города. Станция обеспечит электричеством двенадцать тысяч домов. Рыбаки \
выступали против, потому что боялись за крабов. По данным университета, число крабов уже \
восстановилось. Голосование о второй станции пройдёт в марте."""

ARTICLES = {
    "en": ENGLISH,
    "id": INDONESIAN,
    "de": GERMAN,
    "zh": CHINESE,
    "ja": JAPANESE,
    "th": THAI,
    "ar": ARABIC,
    "ru": RUSSIAN,
}
