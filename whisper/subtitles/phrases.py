"""Small words of some languages, which say where a phrase begins and what must not be torn apart.

Closed classes of words alone, from any grammar: articles and other determiners, pronouns, auxiliaries, negations,
titles, prepositions, conjunctions. What a language does not have here is broken at punctuation and pauses.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass


@dataclass(frozen=True)
class Phrases:
    """The small words of a language, in lower case."""

    bound: frozenset[str]  # belong to the word after them: articles, subject pronouns, auxiliaries, negations, titles
    prepositions: frozenset[str]
    conjunctions: frozenset[str]
    abbreviations: frozenset[str]  # whose full stop ends no sentence


_WORDS: dict[str, tuple[str, str, str, str]] = {
    "en": (
        "a an the this that these those my your his her its our their each every some any no another such "
        "i you he she it we they who there "
        "am is are was were be been being have has had having do does did will would shall should can could may might "
        "must isn't aren't wasn't weren't don't doesn't didn't won't wouldn't can't couldn't shouldn't haven't hasn't "
        "hadn't i'm you're he's she's it's we're they're i've you've we've they've i'll you'll he'll she'll we'll "
        "they'll i'd you'd he'd she'd we'd they'd that's there's let's not never very too quite more most "
        "less least so",
        "about above across after against along among around as at before behind below beneath beside "
        "between beyond by "
        "despite down during except for from in inside into like near of off on onto out outside over past per since "
        "through throughout to toward towards under until up upon via with within without",
        "and or but nor yet because although though if unless while when whenever where wherever whereas whether than "
        "which whose whom what how why",
        "mr. mrs. ms. dr. prof. st. sr. jr. gen. col. lt. sgt. capt. rev. hon. gov. sen. rep. vs. e.g. i.e. no. mt.",
    ),
    "de": (
        "der die das den dem des ein eine einen einem einer eines kein keine keinen keinem keiner keines dieser diese "
        "dieses diesen diesem jener jene jenes jeder jede jedes jeden jedem mein meine meinen meinem meiner "
        "meines dein "
        "deine deinen sein seine seinen seinem seiner seines ihr ihre ihren ihrem ihrer ihres unser unsere "
        "unseren euer "
        "eure welcher welche welches ich du er sie es wir man "
        "bin bist ist sind seid war warst waren habe hast hat haben hatte hatten wird werde wirst werden wurde wurden "
        "würde würden kann kannst können konnte konnten könnte muss müssen musste soll sollen sollte will "
        "wollen wollte "
        "darf dürfen durfte mag möchte nicht nie sehr zu so mehr",
        "ab an am ans auf aus außer bei beim bis durch für gegen gegenüber hinter im in ins mit nach neben ohne seit "
        "statt trotz über um unter von vom vor während wegen zum zur zwischen",
        "und oder aber denn sondern doch weil dass daß ob wenn als wie obwohl damit nachdem bevor sobald solange falls "
        "sodass indem wo wohin woher was wer warum",
        "hr. fr. dr. prof. st. nr. z.b. d.h. u.a. bzw. ca. usw. str. vgl.",
    ),
    "fr": (
        "le la les l' un une des du de d' ce cet cette ces mon ma mes ton ta tes son sa ses notre nos votre vos leur "
        "leurs chaque quelque quelques plusieurs aucun aucune tout toute tous toutes je j' tu il elle on nous vous ils "
        "elles me te se ne n' y en qu' c' s' m' t' "
        "suis es est sommes êtes sont étais était étaient ai as a avons avez ont avais avait avaient serai sera seront "
        "aura auront peut peux peuvent doit dois doivent veut veux veulent va vais vas vont très trop plus "
        "moins si pas",
        "à au aux après avant avec chez contre dans depuis derrière dès devant durant entre envers hors jusque malgré "
        "par parmi pendant pour sans selon sous sur vers",
        "et ou mais donc or ni car que quand lorsque puisque quoique comme si parce où dont qui",
        "m. mm. mme. mlle. dr. pr. st. ste. p. ex. etc.",
    ),
    "es": (
        "el la los las lo un una unos unas este esta estos estas ese esa esos esas aquel aquella mi mis tu tus su sus "
        "nuestro nuestra nuestros nuestras vuestro vuestra cada algún alguna algunos algunas ningún ninguna otro otra "
        "todo toda todos todas yo tú él ella nosotros vosotros ellos ellas usted ustedes me te se le les nos os no "
        "soy eres es somos son era eras eran fui fue fueron he has ha hemos han había habían estoy está están estaba "
        "puede puedo pueden podía debe debo deben quiere quiero va voy van muy más menos tan nunca",
        "a al ante bajo con contra de del desde durante en entre hacia hasta mediante para por según sin sobre tras",
        "y e o u pero sino ni que porque aunque si cuando mientras como donde pues quien cuyo",
        "sr. sra. srta. dr. dra. d. dña. ud. uds. etc. núm.",
    ),
    "it": (
        "il lo la i gli le l' un uno una un' questo questa questi queste quel quello quella quei quegli quelle mio mia "
        "miei mie tuo tua suo sua suoi sue nostro nostra vostro vostra loro ogni qualche io tu lui lei noi "
        "voi mi ti si "
        "ci vi ne non sono sei è siamo siete era erano ho hai ha abbiamo avete hanno aveva avevano può posso possono "
        "deve devo devono vuole voglio molto più meno così",
        "a al allo alla ai agli alle con contro da dal dalla dai dalle di del dello della dei degli delle dentro dopo "
        "durante fra in nel nello nella nei nelle per presso senza sopra sotto su sul sulla tra verso",
        "e ed o ma però né che perché benché se quando mentre come dove poiché chi cui",
        "sig. sig.ra dott. prof. avv. ing. ecc.",
    ),
    "pt": (
        "o a os as um uma uns umas este esta estes estas esse essa esses essas aquele aquela meu minha meus minhas teu "
        "tua seu sua seus suas nosso nossa cada algum alguma nenhum nenhuma outro outra todo toda eu tu ele ela nós "
        "vocês você eles elas me te se lhe não sou és é somos são era eram foi foram tenho tem têm tinha tinham hei há "
        "está estão estava pode posso podem deve devo devem quer quero vai vou vão muito mais menos tão nunca",
        "ao aos à às ante até após com contra de da do das dos desde durante em na no nas nos entre para pela pelo "
        "por perante sem sob sobre trás",
        "e ou mas porém nem que porque embora se quando enquanto como onde pois quem cujo",
        "sr. sra. dr. dra. prof. etc.",
    ),
    "nl": (
        "de het een deze dit die dat mijn jouw zijn haar ons onze jullie hun elk elke ieder iedere geen ik "
        "jij je hij zij "
        "ze wij we men er ben bent is was waren heb hebt heeft hebben had hadden word wordt worden werd "
        "werden zal zult "
        "zullen zou zouden kan kunt kunnen kon konden moet moeten moest mag mogen wil willen wilde niet "
        "nooit zeer heel "
        "te zo meer",
        "aan achter behalve bij binnen boven buiten door in langs met na naar naast om onder op over per sinds tegen "
        "tijdens tot tussen uit van vanaf via voor zonder",
        "en of maar want dus omdat hoewel als toen terwijl indien tenzij wanneer zodat waar wat wie",
        "dhr. mevr. dr. prof. bijv. enz. nr.",
    ),
}  # fmt: skip
_NONE = Phrases(frozenset(), frozenset(), frozenset(), frozenset())


@functools.cache
def phrases_of(language: str | None) -> Phrases:
    """Return the small words of a language by its code; none where it is not known."""
    if language not in _WORDS:
        return _NONE
    bound, prepositions, conjunctions, abbreviations = (frozenset(words.split()) for words in _WORDS[language])
    return Phrases(bound, prepositions, conjunctions, abbreviations)
