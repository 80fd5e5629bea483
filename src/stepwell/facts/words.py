"""Words that carry little meaning of their own, but steer it.

English, with the commonest function words of some other languages: what no list knows is compared as it stands.
"""

# ruff: noqa: SIM905 - long lists are read as text

from __future__ import annotations


def by_word(groups: dict[str, str]) -> dict[str, str]:
    """What each word stands for."""
    return {word: name for name, words in groups.items() for word in words.split()}


NEGATIONS = frozenset(
    "not no never none nobody nothing nowhere neither nor without cannot cant dont doesnt didnt wont isnt arent wasnt "
    "werent hasnt havent hadnt couldnt shouldnt wouldnt havnt except excluding hardly barely "
    "nicht kein keine keinen nie niemals ohne pas jamais sans nunca jamás não sem niet geen nooit zonder mai senza "
    "не нет никогда без".split()
)
UNKNOWING = frozenset("know sur idea understand certain clu".split())
"""Stems behind which a negation says only why somebody asks."""
NEGATIVES = frozenset(
    "unabl avoid fail trouble problem issu wrong incorrect miss deny refus reject declin unhappy dissatisfy lack "
    "prevent impossibl unsuccessful error mistak bad forget los steal block unsatisfy disappear stop difficult stuck "
    "revert cancel gon unauthoriz unrecogniz unknown free".split()
)
"""Stems that may stand for a negation: unable is not able."""
QUANTITIES = frozenset(
    "all only both half every each except least most more less double several none few fewer many "
    "twice once sam".split()
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

QUESTIONS = by_word(
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
    "much": "how many",
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
    "whom whose without what which when where why how if whether because while not no nor please thanks hi hello hey "
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
