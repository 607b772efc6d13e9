"""Two things read off an article's words: its subject and its tone.

The subject comes from what the publisher says (section, tags) and only then from the words, English
and Indonesian; the tone from VADER (Hutto & Gilbert 2014), which knows English alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from app.engine.text.sentences import looks_english

if TYPE_CHECKING:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

GENERAL = "General"
# VADER's own +-0.05 is for single posts. The means over 26 English news pages lay between -0.40 and
# 0.34 and leaned to the positive: plain reports from -0.08 to 0.24, praise and good results from
# 0.29, bad news below -0.19.
POSITIVE_FROM = 0.26
NEGATIVE_FROM = -0.15
TONE_SENTENCES = 120

# One subject a line: the names that publishers give it, then the words that give it away.
_NAMES = """
    Politics: politics political politik election elections pemilu government pemerintahan policy
    Business: business bisnis economy ekonomi finance keuangan money markets market wirtschaft
        companies industry economía economia negocios économie экономика
    Technology: technology tech teknologi tekno gadgets gadget digital computing technik internet
        tecnología tecnologia технологии
    Science: science sains ilmu space wissenschaft ciencia ciência sciences наука
    Health: health kesehatan wellness medicine medical gesundheit salud saúde santé здоровье
    Sports: sports sport olahraga bola sepakbola football soccer basketball baseball tennis nfl
        nba mlb nhl college deportes esportes спорт
    Entertainment: entertainment hiburan celebrity seleb movies film music musik culture arts tv
        showbiz kultur cultura культура
    World: world international internasional global dunia mundo monde welt мир
    Environment: environment lingkungan climate iklim weather cuaca umwelt energy energi
    Education: education pendidikan edukasi schools bildung educación educação
    Travel: travel wisata tourism pariwisata reise viajes
    Lifestyle: lifestyle life style fashion food gaya kuliner living home-garden
    Crime: crime kriminal courts hukum law justice
    Opinion: opinion opini editorial commentary columns
    Automotive: auto autos automotive cars otomotif motoring
"""
_NOT_SECTIONS_LIST = """
    news berita article articles home latest blog post posts story stories index main page
    uncategorized default top trending featured en id us uk nachrichten noticias national local
    general category none
"""
_NOT_SECTIONS = frozenset(_NOT_SECTIONS_LIST.split())
_WORDS = """
    Politics: president minister parliament senate senator congress election elections vote voters
        campaign democrat democrats republican republicans lawmakers impeachment government party
        coalition ballot presiden menteri pemilu dpr partai pemerintah gubernur pilkada kampanye
        suara kebijakan politik
    Business: shares stock stocks investors profit revenue earnings company companies market
        markets bank inflation economy economic billion ceo quarter sales trade tariffs merger
        acquisition startup saham investor laba pendapatan perusahaan pasar inflasi ekonomi bisnis
        triliun miliar ekspor impor rupiah
    Technology: software app apps smartphone google apple microsoft facebook algorithm data
        internet cyber hackers robot robots chip chips startup online users device devices
        computer computers ai artificial aplikasi ponsel teknologi digital siber komputer
        perangkat pengguna
    Science: scientists researchers study nasa space planet species physics laboratory experiment
        telescope asteroid fossil genome ilmuwan peneliti penelitian antariksa spesies
    Health: health hospital patients doctors disease virus vaccine cancer medical treatment drug
        symptoms clinical surgery infection kesehatan pasien dokter penyakit vaksin rumah-sakit
        obat gejala puskesmas
    Sports: game games season team teams coach player players league championship goal goals match
        yards touchdown touchdowns tournament scored striker midfielder football soccer basketball
        olympic athlete athletes medal swimming club clubs transfer midfield pertandingan pemain
        pelatih liga gol tim klub turnamen juara olahraga
    Entertainment: film films movie movies actor actress album singer concert celebrity hollywood
        netflix series music band festival theatre aktor aktris penyanyi konser lagu musik artis
        sinetron
    World: protesters protests demonstrators amnesty troops army soldiers war ceasefire embassy
        refugees border sanctions militants treaty nato hostage hostages taliban diplomats perang
        gencatan pengungsi kedutaan sanksi pbb militer
    Environment: energy electricity turbine turbines climate emissions carbon pollution wildfire
        flood drought conservation forest solar renewable biodiversity warming iklim emisi karbon
        polusi banjir hutan kebakaran lingkungan sampah
    Education: school schools students teachers university curriculum classroom exam sekolah siswa
        guru universitas kurikulum mahasiswa pendidikan ujian
    Crime: police arrested murder suspect court prosecutors prison charged shooting victim trial
        jury sentenced polisi ditangkap pembunuhan tersangka pengadilan jaksa penjara korban
    Automotive: car cars suv sedan horsepower engine vehicle vehicles electric driving mobil
        kendaraan motor
"""
_TOKEN = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


def category_of(section: str | None, tags: Sequence[str], text: str) -> str:
    """Name the subject: the publisher's section, else a tag, else the article's words."""
    if section and (named := _named(section) or _own_name(section)):
        return named
    for tag in tags:
        if named := _named(tag):
            return named
    return _by_words(text)


def sentiment_of(sentences: Sequence[str], language: str | None) -> str:
    """Name the tone: positive, negative, or neutral where it is mixed or the language unknown.

    It is the mean of VADER's compound score over the sentences, between the two thresholds above
    neutral.
    """
    if language:
        english = language.strip().lower().startswith("en")
    else:
        english = looks_english(" ".join(sentences[:TONE_SENTENCES]))
    if not english:
        return "neutral"
    tone = tone_of(sentences)
    if tone >= POSITIVE_FROM:
        return "positive"
    return "negative" if tone <= NEGATIVE_FROM else "neutral"


def tone_of(sentences: Sequence[str]) -> float:
    """Return the mean compound score of the sentences, -1 to 1."""
    read = sentences[:TONE_SENTENCES]
    scores = [float(_analyzer().polarity_scores(sentence)["compound"]) for sentence in read]
    return sum(scores) / max(1, len(scores))


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


@cache
def _index(table: str) -> dict[str, list[str]]:
    """Turn a table of subjects and their words round: the subjects of each word."""
    index: dict[str, list[str]] = {}
    category = GENERAL
    for word in table.split():
        if word.endswith(":"):
            category = word.removesuffix(":")
        else:
            index.setdefault(word, []).append(category)
    return index


def _named(label: str) -> str | None:
    for word in _TOKEN.findall(label.casefold()):
        if categories := _index(_NAMES).get(word):
            return categories[0]
    return None


def _own_name(section: str) -> str | None:
    """Take an unknown section as it is, unless it is only the name of a part of a site."""
    name = " ".join(re.split(r"[/>|,;]", section)[-1].replace("_", " ").split())
    if not 2 <= len(name) <= 30 or not name[0].isalpha():
        return None
    if _NOT_SECTIONS.issuperset(name.casefold().split()):
        return None
    return name if name[0].isupper() else name[0].upper() + name[1:]


def _by_words(text: str) -> str:
    """Choose the subject with most words; a word said often counts less each time."""
    index = _index(_WORDS)
    seen = Counter(word for word in _TOKEN.findall(text.casefold()) if word in index)
    scores: dict[str, float] = {}
    for word, times in seen.items():
        for category in index[word]:
            scores[category] = scores.get(category, 0.0) + min(times, 4) ** 0.5
    best = max(scores, key=lambda category: scores[category], default=GENERAL)
    return best if scores.get(best, 0.0) >= 2.0 else GENERAL
