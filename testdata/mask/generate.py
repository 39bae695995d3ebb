"""Writes labelled-generated.txt: clinical and operational lines with marked identifiers.

Check digits are computed here, by none of the scanner's code. Run it in this
folder; the output is committed and depends on the seed alone.
"""
import random

r = random.Random(20261123)
digits = lambda n: "".join(r.choice("0123456789") for _ in range(n))


def luhn(body):
    total = 0
    for i, c in enumerate(reversed(body)):
        d = int(c) * (2 if i % 2 == 0 else 1)
        total += d - 9 if d > 9 else d
    return body + str(-total % 10)


def ssn(sep="-"):
    area = r.choice([n for n in range(1, 900) if n != 666])
    return sep.join(["%03d" % area, "%02d" % r.randint(1, 99), "%04d" % r.randint(1, 9999)])


def itin():
    group = r.choice([*range(50, 66), *range(70, 89), 90, 91, 92, 94, 95, 96, 97, 98, 99])
    return "9%s-%02d-%s" % (digits(2), group, digits(4))


def nanp():
    return r.choice("23456789") + digits(2), r.choice("23456789") + digits(2), digits(4)


def phone():
    return r.choice(["(%s) %s-%s", "%s-%s-%s", "%s.%s.%s", "+1 %s %s %s"]) % nanp()


def card():
    n = luhn(r.choice(["4", "51", "55", "6011"]).ljust(6, "7") + digits(9))
    n = n if len(n) == 16 else luhn("4" + digits(14))
    return r.choice([n, " ".join(n[i:i + 4] for i in range(0, 16, 4)), "-".join(n[i:i + 4] for i in range(0, 16, 4))])


def npi():
    body = r.choice("12") + digits(8)
    return luhn("80840" + body)[5:]


def dea():
    d = [int(c) for c in digits(6)]
    return r.choice("ABFGM") + r.choice("ABCDEFGHJKLMNPRSTUVWXYZ") + "".join(map(str, d)) + str((d[0] + d[2] + d[4] + 2 * (d[1] + d[3] + d[5])) % 10)


def mbi():
    a, n = "ACDEFGHJKMNPQRTUVWXY", "0123456789"
    s = "".join(r.choice({"C": "123456789", "A": a, "N": n, "X": a + n}[f]) for f in "CAXNAXNAANN")
    return r.choice([s, s[:4] + "-" + s[4:7] + "-" + s[7:]])


def vin():
    value = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ0123456789", [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9, 2, 3, 4, 5, 6, 7, 8, 9, *range(10)]))
    chars = [r.choice("ABCDEFGHJKLMNPRSTUVWXYZ0123456789") for _ in range(16)] + ["7"]
    chars[0], chars[8] = r.choice("12345JKW"), "0"
    total = sum(w * value[c] for w, c in zip([8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2], chars))
    chars[8] = "0123456789X"[total % 11]
    return "".join(chars)


def iban():
    country, body = r.choice([("DE", digits(18)), ("NL", "ABNA" + digits(10)), ("GB", "WEST" + digits(14)), ("NO", digits(11))])
    number = "".join(str(int(c, 36)) for c in body + country + "00")
    s = country + "%02d" % (98 - int(number) % 97) + body
    return r.choice([s, " ".join(s[i:i + 4] for i in range(0, len(s), 4))])


def aba():
    while True:
        n = "%02d" % r.choice([*range(1, 13), *range(21, 33)]) + digits(7)
        if sum(w * int(c) for w, c in zip([3, 7, 1] * 3, n)) % 10 == 0:
            return n


def when():
    y, m, d = r.randint(1930, 2026), r.randint(1, 12), r.randint(1, 28)
    name = "January February March April May June July August September October November December".split()[m - 1]
    return r.choice(["%d-%02d-%02d" % (y, m, d), "%02d/%02d/%d" % (m, d, y), "%d.%d.%d" % (d, m, y), "%s %d, %d" % (name, d, y), "%d-%s-%d" % (d, name[:3].upper(), y)])


ip4 = lambda: "%d.%d.%d.%d" % tuple(r.choice([10, 172, 192, 203]) if i == 0 else r.randint(0, 254) for i in range(4))
ip6 = lambda: "2001:db8:%x:%x::%x" % (r.randint(1, 65535), r.randint(1, 65535), r.randint(1, 65535))
mac = lambda: ":".join("%02x" % r.randint(0, 255) for _ in range(6))
mail = lambda: "%s.%s@%s" % (r.choice("ada grace alan edsger barbara".split()), r.choice("byron hopper t d liskov".split()) + digits(2), r.choice(["example.org", "mail.example.com", "clinic.example.net"]))
word = lambda: r.choice("reports mild pain in the left knee after running no fever advised rest ibuprofen BP 118/76 pulse 72 weight 81.5 kg room 12 ward B glucose 126 mg/dL follow-up in 2 weeks WBC 5.4".split())
prose = lambda: " ".join(word() for _ in range(r.randint(3, 9)))

forms = [
    ("ssn", ssn, ["SSN {}", "{} on file", "social security {}"]), ("ssn", lambda: ssn(""), ["ssn {}", "SSN: {}"]), ("itin", itin, ["ITIN {}", "files under {}"]),
    ("phone", phone, ["call {}", "{}", "mobile {}"]), ("fax", lambda: "%s-%s-%s" % nanp(), ["fax {}", "Fax: {}"]), ("credit_card", card, ["paid with {}", "card {}"]),
    ("npi", npi, ["NPI {}", "provider {}"]), ("dea", dea, ["DEA {}", "{}"]), ("mbi", mbi, ["Medicare {}", "{}"]), ("vin", vin, ["VIN {}", "{}"]), ("iban", iban, ["IBAN {}", "to {}"]),
    ("aba", aba, ["routing {}", "ABA number {}"]), ("mrn", lambda: digits(8), ["MRN {}", "MRN: {}", "medical record number {}"]), ("date", when, ["on {}", "DOB {}"]),
    ("ip", ip4, ["from {}", "{}"]), ("ip", ip6, ["from {}", "{}"]), ("mac", mac, ["adapter {}"]), ("email", mail, ["{}", "write to {}"]),
    ("age", lambda: str(r.randint(90, 110)), ["age {}", "aged {}"]), ("zip", lambda: digits(5) + "-" + digits(4), ["MA {}"]), ("imei", lambda: luhn("35" + digits(12)), ["IMEI {}"]),
    ("url", lambda: "https://example.org/p/" + digits(4), ["see {}"]), ("secret", lambda: "AKIA" + "".join(r.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(15)) + "7", ["key {}"]),
]
traps = ["order {}".format, "ticket #{}".format, "lot {}".format, "ref {}".format, "count {}".format, "{} units".format]
with open("labelled-generated.txt", "w") as out:
    out.write("# Made by generate.py. Do not edit.\n")
    for i in range(30):
        for entity, make, shapes in forms:
            out.write("%s, %s. %s\n" % (prose(), r.choice(shapes).format("[[%s:%s]]" % (entity, make())), prose()))
        for n in (5, 6, 7, 8, 9, 10, 11):
            out.write("%s; %s; %s\n" % (prose(), r.choice(traps)(r.choice("13579") + digits(n - 1)), prose()))
