"""Words for the same thing, Indonesian and English: the first of each line stands for all."""

from __future__ import annotations

from functools import cache

# One line a thing. What is stored and what is asked for both become the first word, so a new line
# counts for goods that are there already only after `python -m app.db reindex`.
_LINES = """
laptop, notebook, leptop, laptob, netbook
ponsel, handphone, hape, smartphone, hp, telepon genggam, telepon seluler, cellphone, phone, gawai
ponsel, cell phone, mobile phone
kulkas, lemari es, refrigerator, fridge, lemari pendingin, kulkass
televisi, tv, tivi, television, smart tv, teve
ac, air conditioner, pendingin ruangan, aircon
mesin cuci, washing machine, washer, mesincuci
kipas, kipas angin, fan
setrika, setrikaan, iron
rice cooker, penanak nasi, magic com, magicom, magic jar, ricecooker, mejikom
penyedot debu, vacuum cleaner, vacuum, vakum
kompor, stove
oven, pemanggang
blender, pelumat
dispenser, dispenser air, water dispenser
lampu, lamp, bohlam, light bulb
earphone, headset, headphone, earbud, earbuds, tws, handsfree
pengeras suara, speaker, spiker
pengisi daya, charger, cas, casan, adaptor daya
power bank, powerbank, baterai cadangan
kamera, camera, kameraa
papan ketik, keyboard, kibor
tetikus, mouse
monitor, layar komputer
pencetak, printer
router, wifi router
hard disk, harddisk, hdd, hardisk
ssd, solid state drive
flash disk, flashdisk, usb drive, fd
komputer, pc, desktop, computer
tablet, tab
jam tangan, watch, arloji, jam
smartwatch, jam pintar
sepatu, shoe, shoes, sneaker, sneakers, kasut
sandal, sendal, slipper, sandals
baju, pakaian, clothes
kaos, kaus, t-shirt, tshirt, t shirt
kemeja, shirt
celana, pants, trousers, celana panjang
jins, jeans
jaket, jacket
tas, bag
ransel, backpack, tas punggung, tas ransel
dompet, wallet
kerudung, jilbab, hijab
topi, hat, cap
sepeda, bicycle, bike, sepedah
motor, sepeda motor, motorcycle
mobil, car
ban, tire, tyre
helm, helmet
meja, table, desk
kursi, chair, bangku
lemari, cupboard, wardrobe, cabinet
kasur, mattress, springbed, spring bed, matras
bantal, pillow
selimut, blanket
sofa, couch
tirai, gorden, curtain, korden
karpet, carpet, permadani
panci, pot
wajan, penggorengan, frying pan, teflon
piring, plate
gelas, cup, glass
botol, bottle
pisau, knife
beras, rice
minyak goreng, cooking oil
gula, sugar
kopi, coffee
teh, tea
susu, milk
tepung, flour
telur, telor, egg, eggs
air mineral, mineral water
obat, medicine
masker, mask
sabun, soap
sampo, shampoo, shampo
popok, diaper, diapers, pampers
mainan, toy, toys
boneka, doll
buku, book
pensil, pencil
pulpen, pen, bolpoin, ballpoint
kertas, paper
bor, drill, bor listrik
palu, hammer
obeng, screwdriver
gergaji, saw
cat, paint
semen, cement
pompa air, water pump, pompa
gitar, guitar
raket, racket
bola, ball
tenda, tent
pancing, joran, fishing rod
gaming, gamer, game, geming
nirkabel, wireless, tanpa kabel
hitam, black
putih, white
merah, red
biru, blue
hijau, green
kuning, yellow
abu-abu, abu abu, grey, gray
cokelat, coklat, brown
anak, kids, kid, children
bayi, baby
pria, cowok, laki-laki, men
wanita, cewek, perempuan, women
"""


@cache
def groups() -> tuple[tuple[str, ...], ...]:
    """Return the words of each thing, the one that stands for all first."""
    return tuple(
        tuple(word.strip() for word in line.split(",")) for line in _LINES.strip().splitlines()
    )


@cache
def phrases() -> dict[tuple[str, ...], str]:
    """Return which words, in a row, stand for which thing; a thing is written as one word."""
    found = {}
    for words in groups():
        for word in words:
            found[tuple(word.replace("-", " ").split())] = (
                words[0].replace("-", "").replace(" ", "")
            )
    return found


LONGEST = 3
