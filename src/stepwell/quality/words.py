"""Words that carry facts: what the guard of the cache and the judges read a text by.

English mostly, with the commonest function words of some other languages: what no list knows is compared as it stands.
"""

# ruff: noqa: SIM905 - long lists are read as text

from __future__ import annotations


def _table(groups: dict[str, str]) -> dict[str, str]:
    return {word: name for name, words in groups.items() for word in words.split()}


NUMBERS = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
} | dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "k": 1000, "million": 10**6, "billion": 10**9}
ORDINALS = {
    word: value
    for value, word in enumerate(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(), 1
    )
}
TIMES = {"twice": 2, "thrice": 3, "double": 2, "triple": 3, "half": 0.5}

UNITS = _table(
    {
        "s": "second seconds sec secs",
        "min": "minute minutes min mins",
        "h": "hour hours hr hrs",
        "day": "day days tag tage jour jours dia dias día días",
        "week": "week weeks wk wks",
        "month": "month months",
        "year": "year years yr yrs",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "cm": "cm centimeter centimeters centimetre centimetres",
        "m": "m meter meters metre metres",
        "km": "km kms kilometer kilometers kilometre kilometres",
        "in": "inch inches",
        "ft": "ft foot feet",
        "yd": "yard yards yd",
        "mi": "mile miles mi",
        "mg": "mg milligram milligrams",
        "g": "g gram grams gramme grammes",
        "kg": "kg kgs kilo kilos kilogram kilograms",
        "oz": "oz ounce ounces",
        "lb": "lb lbs",
        "t": "ton tons tonne tonnes",
        "ml": "ml milliliter milliliters millilitre millilitres",
        "l": "l liter liters litre litres",
        "gal": "gallon gallons gal",
        "cup": "cup cups",
        "tbsp": "tablespoon tablespoons tbsp",
        "tsp": "teaspoon teaspoons tsp",
        "%": "% percent pct percentage",
        "°c": "celsius centigrade °c",
        "°f": "fahrenheit °f",
        "b": "byte bytes",
        "kb": "kb kilobyte kilobytes kib",
        "mb": "mb megabyte megabytes mib",
        "gb": "gb gigabyte gigabytes gib",
        "tb": "tb terabyte terabytes tib",
        "w": "watt watts",
        "kw": "kw kilowatt kilowatts",
        "kwh": "kwh",
        "cal": "cal calorie calories kcal",
        "mph": "mph",
        "kph": "kph kmh",
    }
)
CURRENCIES = _table(
    {
        "usd": "$ usd dollar dollars buck bucks us$",
        "eur": "€ eur euro euros",
        "gbp": "£ gbp pound pounds quid sterling",
        "jpy": "¥ jpy yen",
        "inr": "₹ inr rupee rupees",
        "cny": "cny rmb yuan renminbi",
        "chf": "chf franc francs",
        "aud": "aud a$",
        "cad": "cad c$",
        "sek": "sek krona kronor",
        "nok": "nok",
        "dkk": "dkk",
        "pln": "pln zloty zlotys",
        "rub": "rub ruble rubles rouble roubles ₽",
        "brl": "brl real reais",
        "mxn": "mxn peso pesos",
        "krw": "krw won ₩",
        "try": "lira liras ₺",
        "zar": "zar rand",
        "btc": "btc bitcoin bitcoins ₿",
        "eth": "eth ether ethereum",
        "cent": "cent cents penny pence pennies",
    }
)
MONTHS = _table(
    {
        "1": "january jan",
        "2": "february feb",
        "3": "march",
        "4": "april apr",
        "5": "may",
        "6": "june jun",
        "7": "july jul",
        "8": "august aug",
        "9": "september sept sep",
        "10": "october oct",
        "11": "november nov",
        "12": "december dec",
    }
)
WEEKDAYS = _table(
    {
        "mon": "monday mon mondays",
        "tue": "tuesday tues tuesdays",
        "wed": "wednesday wednesdays",
        "thu": "thursday thurs thursdays",
        "fri": "friday fri fridays",
        "sat": "saturday saturdays",
        "sun": "sunday sundays",
        "weekend": "weekend weekends",
        "weekday": "weekday weekdays",
    }
)
DAYS = _table(
    {
        "today": "today todays tonight heute aujourd'hui hoy oggi hoje",
        "tomorrow": "tomorrow tomorrows morgen demain mañana domani amanhã",
        "yesterday": "yesterday yesterdays gestern hier ayer ieri ontem",
    }
)
HOURS = _table(
    {
        "morning": "morning mornings",
        "noon": "noon midday",
        "afternoon": "afternoon afternoons",
        "evening": "evening evenings",
        "midnight": "midnight",
    }
)
RELATIVE = _table({"last": "last previous past", "next": "next following upcoming coming", "this": "this current"})
"""Makes a date of the day, week, month or year behind it."""
SPANS = frozenset(
    {*WEEKDAYS, "day", "night", "week", "month", "year", "quarter", "decade", "century", "hour", "minute"}
)

NEGATIONS = frozenset(
    "not no never none nobody nothing nowhere neither nor without cannot cant dont doesnt didnt wont isnt arent wasnt "
    "werent hasnt havent hadnt couldnt shouldnt wouldnt havnt except excluding hardly barely "
    "nicht kein keine keinen nie niemals ohne pas jamais sans nunca jamás sin não sem niet geen nooit zonder mai senza "
    "не нет никогда без".split()
)
CONTRACTIONS = {
    "can't": ("can", "not"),
    "won't": ("will", "not"),
    "shan't": ("shall", "not"),
    "ain't": ("is", "not"),
    "cannot": ("can", "not"),
    "let's": ("let",),
} | {
    short: (long, "not")
    for short, long in (
        pair.split("=")
        for pair in "cant=can dont=do doesnt=does didnt=did wont=will isnt=is arent=are wasnt=was werent=were "
        "hasnt=has havent=have hadnt=had couldnt=could shouldnt=should wouldnt=would havnt=have havn't=have "
        "dosen't=does dosent=does".split()
    )
}

POLES = (
    "open opened reopen / close closed shut",
    "on / off",
    "in / out",
    "up / down",
    "enable activate enabled / disable deactivate inactivate",
    "start begin launch resume / stop end finish quit pause halt",
    "increase raise rise grow higher up-rate boost / decrease reduce lower cut shrink decline drop diminish",
    "add insert include / remove delete exclude erase",
    "buy purchase / sell",
    "lend / borrow",
    "send / receive",
    "deposit / withdraw withdrawal",
    "give / take",
    "push / pull",
    "before prior / after afterwards",
    "above over / below under beneath",
    "maximum max most highest largest biggest / minimum min least lowest smallest",
    "more / less fewer",
    "best / worst",
    "better / worse",
    "good / bad",
    "first / last",
    "early earlier earliest / late later latest",
    "win / lose",
    "accept approve / reject refuse decline deny",
    "allow permit / forbid prohibit ban prevent",
    "lock block freeze / unlock unblock unfreeze",
    "connect attach link / disconnect detach unlink",
    "join / leave",
    "enter / exit",
    "arrive arrival arrivals / depart departure departures",
    "import / export",
    "upload / download",
    "encrypt encode compress / decrypt decode decompress",
    "left / right",
    "north / south",
    "east / west",
    "hot warm / cold cool",
    "large big huge / small little tiny",
    "fast faster fastest quick / slow slower slowest",
    "cheap cheaper cheapest / expensive dear pricey",
    "long longer longest / short shorter shortest",
    "old older oldest / new newer newest young younger youngest",
    "inside indoor / outside outdoor",
    "public / private",
    "domestic / foreign international",
    "legal allowed / illegal forbidden",
    "safe / unsafe dangerous",
    "succeed success successful / fail failure failed unsuccessful",
    "always / never",
    "all every everything / none nothing",
    "credit / debit",
    "income / expense",
    "profit gain / loss",
    "ask / answer",
    "employer / employee",
    "man male men husband boy / woman female women wife girl",
    "mother / father",
    "brother / sister",
    "son / daughter",
    "day / night",
    "summer / winter",
    "front / back",
    "ascending / descending",
    "hire / fire",
    "save / spend",
    "remember / forget",
    "show reveal unhide / hide",
    "lengthen extend / shorten",
    "mute silence / unmute",
    "incoming inbound / outgoing outbound",
    "wet / dry",
    "full / empty",
    "true / false",
    "yes / no",
    "tighten / loosen",
    "expand / collapse",
    "sender / recipient receiver",
    "heavy heavier / light lighter",
    "even / odd",
    "vertical / horizontal",
    "ceiling / floor",
    "guilty / innocent",
    "gross / net",
    "temporary / permanent",
    "manual / automatic",
    "online / offline",
    "single unmarried / married",
)
PARTICLES = frozenset("on off in out up down".split())
"""Have a direction only behind one of these verbs."""
PARTICLE_VERBS = frozenset(
    "turn switch power log sign check opt clock lock shut put set speed slow scale move go roll scroll count phase "
    "toggle walk".split()
)

QUESTIONS = _table(
    {
        "who": "who whom whose wer quien quién chi quem кто",
        "where": "where wheres wo où donde dónde dove onde waar где",
        "when": "when whens wann quand cuando cuándo quando wanneer когда",
        "why": "why whys warum pourquoi porque perché waarom почему",
        "how": "how hows wie comment como cómo как",
        "which": "which welche welcher welches quel quelle cuál quale qual welke",
        "what": "what whats que qué cosa quoi wat что",
    }
)
HOW = {
    "many": "how many",
    "much": "how much",
    "long": "how long",
    "often": "how often",
    "frequently": "how often",
    "far": "how far",
    "old": "how old",
    "big": "how big",
    "large": "how big",
}
"""What "how" asks for with this word behind it."""

STOP = frozenset(
    "a an the of to in on for and or but so as at by with from about into onto over than then that this these those "
    "there here it its is are was were be been being am do does did done doing can could would should will shall may "
    "might must have has had having my mine me i you your yours we us our ours they them their he him his she her who "
    "whom whose what which when where why how if whether because while not no nor n't please thanks thank hi hello hey "
    "ok okay just also too very really quite some any such own same all both each per via get got let want need like "
    "know tell help s t re ve ll d m im ive id youre thats whats hows wheres theres sir madam".split()
)
FILLERS = frozenset(
    "please thanks thank hi hello hey ok okay just really very actually basically simply kindly now still yet already "
    "currently exactly possibly maybe perhaps anyway well so also too again today's the a an any some even ever right "
    "quickly soon asap immediately exactly honestly literally totally damn sir madam guys dear".split()
)
"""Say nothing that an answer depends on."""
OPENINGS = frozenset(
    "do does did can could would should will shall may might must am is are was were be been being have has had having "
    "i you we me us my our your".split()
)
"""Who asks and how politely: no answer depends on which of these is used."""

SAME = {
    "get": "get receive obtain gain acquire",
    "buy": "buy purchase bought",
    "show": "show display",
    "start": "start begin",
    "try": "try attempt",
    "kid": "kid child children kids",
    "fee": "fee charge cost price",
    "change": "change alter modify edit update",
    "fix": "fix repair resolve solve",
    "problem": "problem trouble issue",
    "picture": "picture photo image pic",
    "phone": "phone telephone cellphone mobile",
    "verify": "verify validate confirm check",
    "need": "need require",
    "find": "find locate",
    "reason": "reason cause",
    "allow": "allow permit let",
    "accept": "accept support take",
    "keep": "keep continue",
    "wait": "wait await",
    "quick": "quick fast rapid soon",
    "error": "error mistake",
    "wrong": "wrong incorrect",
    "right": "correct proper",
    "decline": "decline reject refuse deny",
    "cancel": "cancel call-off",
    "several": "several multiple various many different",
    "function": "function work operate",
    "finish": "finish complete",
    "say": "say tell state",
    "speak": "speak talk",
    "steal": "steal theft rob",
    "lose": "lose misplace",
    "choose": "choose select pick",
    "movie": "movie film",
    "use": "use utilize",
    "arrive": "arrive come deliver",
    "create": "create make generate",
    "explain": "explain describe",
    "want": "want wish like",
    "large": "large big huge",
    "small": "small little tiny",
    "see": "see view",
    "limit": "limit restriction cap",
    "amount": "amount quantity sum",
    "possible": "possible permissible able",
    "transaction": "transaction payment",
    "happen": "happen occur",
    "seem": "seem look appear",
    "think": "think believe",
    "travel": "travel trip journey vacation",
    "near": "near nearby close",
    "whole": "whole entire",
    "extra": "extra additional",
    "another": "another new additional",
    "anywhere": "anywhere everywhere",
    "delete": "delete erase remove",
    "song": "song track tune",
    "job": "job work",
    "car": "car vehicle automobile",
    "bill": "bill invoice",
    "meaning": "meaning definition",
    "mean": "mean signify",
    "weather": "weather forecast",
    "translate": "translate say",
    "reset": "reset restart",
    "schedule": "schedule arrange plan",
    "meeting": "meeting appointment",
}
"""Usually the same in a question, where the rest of the question is the same."""

IRREGULAR = dict(
    pair.split("=")
    for pair in "paid=pay sent=send bought=buy lost=lose stolen=steal stole=steal got=get gotten=get went=go gone=go "
    "made=make took=take taken=take gave=give given=give withdrew=withdraw withdrawn=withdraw withdrawal=withdraw "
    "withdrawals=withdraw spent=spend told=tell found=find left=leave said=say saw=see seen=see kept=keep broke=break "
    "broken=break chose=choose chosen=choose forgot=forget forgotten=forget sold=sell came=come done=do did=do "
    "does=do has=have had=have is=be are=be was=be were=be been=be am=be wrote=write written=write thought=think "
    "understood=understand children=child people=person men=man women=woman feet=foot rose=rise risen=rise "
    "fell=fall fallen=fall grew=grow grown=grow began=begin begun=begin lent=lend won=win ran=run met=meet "
    "recieve=receive recieved=receive recieving=receive recognise=recognize unrecognised=unrecognize "
    "tranfer=transfer payed=pay used=use using=use tried=try tries=try".split()
)

LANGUAGES = {
    "en": "the is are my how what why can do does i to of and a in for you it this when where will",
    "de": "der die das ist sind mein meine wie was warum kann ich zu und ein eine für nicht wo wann mit den auf",
    "fr": "le la les est sont mon ma mes comment pourquoi je de et un une pour vous que où quand avec des du puis",
    "es": "el la los las es son mi mis cómo qué por puedo de y un una para que dónde cuándo con del mi",
    "it": "il lo la gli è sono mio mia come perché posso di e un una per che dove quando con del della",
    "pt": "o os as é são meu minha como por que posso de e um uma para onde quando com do da não",
    "nl": "de het is zijn mijn hoe wat waarom kan ik te en een voor niet waar wanneer met van op",
}

PLACES = frozenset(
    "afghanistan albania algeria argentina armenia australia austria azerbaijan bangladesh belarus belgium bolivia "
    "bosnia botswana brazil bulgaria cambodia cameroon canada chad chile china colombia congo croatia cuba cyprus "
    "denmark ecuador egypt england estonia ethiopia finland france georgia germany ghana greece guatemala haiti "
    "honduras hungary iceland india indonesia iran iraq ireland israel italy jamaica japan jordan kazakhstan kenya "
    "kuwait laos latvia lebanon libya lithuania luxembourg malaysia mali malta mexico moldova mongolia morocco "
    "mozambique myanmar namibia nepal netherlands nicaragua niger nigeria norway oman pakistan panama paraguay peru "
    "philippines poland portugal qatar romania russia rwanda scotland senegal serbia singapore slovakia slovenia "
    "somalia spain sudan sweden switzerland syria taiwan tanzania thailand tunisia uganda ukraine uk usa uruguay "
    "venezuela vietnam wales yemen zambia zimbabwe europe asia africa antarctica "
    "london paris berlin madrid rome vienna amsterdam brussels dublin lisbon prague warsaw budapest athens istanbul "
    "moscow tokyo kyoto osaka beijing shanghai seoul delhi mumbai bangkok jakarta manila sydney melbourne cairo lagos "
    "nairobi toronto montreal vancouver chicago boston houston dallas miami seattle denver atlanta phoenix "
    "philadelphia detroit texas california florida hawaii alaska oregon ohio arizona nevada colorado utah georgia "
    "spanish french german italian english japanese chinese russian arabic portuguese dutch korean hindi greek "
    "turkish polish swedish norwegian danish finnish american british canadian australian mexican indian irish "
    "european asian african visa mastercard amex paypal".split()
)
