"""Words that are values: numbers, units, money, dates, places."""

# ruff: noqa: SIM905 - long lists are read as text

from __future__ import annotations

from stepwell.facts.words import by_word

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

UNITS = by_word(
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
CURRENCIES = by_word(
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
MONTHS = by_word(
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
WEEKDAYS = by_word(
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
DAYS = by_word(
    {
        "today": "today todays tonight heute aujourd'hui hoy oggi hoje",
        "tomorrow": "tomorrow tomorrows morgen demain mañana domani amanhã",
        "yesterday": "yesterday yesterdays gestern hier ayer ieri ontem",
    }
)
HOURS = by_word(
    {
        "morning": "morning mornings",
        "noon": "noon midday",
        "afternoon": "afternoon afternoons",
        "evening": "evening evenings",
        "midnight": "midnight",
    }
)
RELATIVE = by_word({"last": "last previous past", "next": "next following upcoming coming", "this": "this current"})
"""Makes a date of the day, week, month or year behind it."""
SPANS = frozenset(
    {*WEEKDAYS, "day", "night", "week", "month", "year", "quarter", "decade", "century", "hour", "minute"}
)

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
