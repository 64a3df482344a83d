"""The sentences of the demo corpus: an opening that carries an emotion, and a topic that does not.

Every opening goes with every topic of its language, so sentences need not repeat while their words do, and a
bag of words learns something that holds for unseen sentences. The neutral class uses only the plain openings,
and each emotion borrows them occasionally, so words alone do not determine the emotion.
"""

LANGUAGES = ("en", "de", "es", "fr")
EMOTIONS = ("neutral", "happy", "sad", "angry")


def _parts(text: str) -> tuple[str, ...]:
    return tuple(text.split(" / "))


OPENINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "neutral": _parts(
            "I am calling about / We will talk about / Here is the note about / They asked again about / "
            "This page is about / I will write about"
        ),
        "happy": _parts(
            "I am so happy about / What wonderful news about / We are happy and proud of / I just love / "
            "It is a joy, a wonderful joy, to have / We love and enjoy"
        ),
        "sad": _parts(
            "I am so sad about / I cried all night over / We lost, sadly we lost / "
            "I miss, I really miss / It is sad to lose / In tears I think of"
        ),
        "angry": _parts(
            "I am furious about / Stop it, do not touch / I hate, I simply hate / How dare you ruin / "
            "Enough, stop talking about / I am so angry, you ruined"
        ),
    },
    "de": {
        "neutral": _parts(
            "Ich rufe an wegen der Frage über / Wir sprechen nachher über / Hier steht etwas über / "
            "Sie fragten noch einmal nach Angaben über / Auf dieser Seite geht es um / "
            "Ich schreibe später über"
        ),
        "happy": _parts(
            "Ich freue mich so über / Wunderbare Nachrichten über / Wir sind glücklich und stolz über / "
            "Ich liebe einfach / Wie schön, ich freue mich auf / Glücklich lachen wir über"
        ),
        "sad": _parts(
            "Ich bin so traurig über / Ich weinte die ganze Nacht um / Leider verloren wir / "
            "Ich vermisse, ich vermisse sehr / Es ist traurig, ich weine um / Unter Tränen denke ich an"
        ),
        "angry": _parts(
            "Ich bin wütend über / Hör auf, lass endlich / Ich hasse, ich hasse einfach / "
            "Wie kannst du es wagen, du ruinierst / Schluss, hör auf mit Fragen über / "
            "Ich bin so wütend, du ruinierst"
        ),
    },
    "es": {
        "neutral": _parts(
            "Llamo para preguntar por / Luego hablaremos sobre / Aquí hay una nota sobre / "
            "Preguntaron otra vez por / Esta página trata sobre / Mañana escribiré sobre"
        ),
        "happy": _parts(
            "Estoy muy feliz por / Qué maravillosa noticia sobre / Estamos felices y contentos por / "
            "Me encanta, me encanta / Qué alegría, qué maravillosa es / Con mucha alegría celebro"
        ),
        "sad": _parts(
            "Estoy muy triste por / Lloré toda la noche por / Por desgracia perdimos / "
            "Echo de menos, lloro por / Es triste perder / Con lágrimas pienso en"
        ),
        "angry": _parts(
            "Estoy furioso por / Basta ya, no toques / Odio, de verdad odio / "
            "Cómo te atreves, arruinaste / Basta, deja de hablar sobre / Estoy furioso, arruinaste"
        ),
    },
    "fr": {
        "neutral": _parts(
            "J'appelle au sujet de / Nous parlerons plus tard de / Voici une note sur / "
            "Ils demandent encore des détails sur / Cette page parle de / Demain je vais écrire sur"
        ),
        "happy": _parts(
            "Je suis si heureux pour / Quelle merveilleuse nouvelle sur / "
            "Nous sommes heureux et fiers de / J'adore, j'adore vraiment / Quelle joie, j'adore / "
            "Avec une joie merveilleuse je fête"
        ),
        "sad": _parts(
            "Je suis si triste pour / J'ai pleuré toute la nuit pour / Hélas, nous avons perdu / "
            "Je regrette, je pleure / C'est triste de perdre / En larmes je pense à"
        ),
        "angry": _parts(
            "Je suis furieux contre / Arrête, ne touche pas à / Je déteste, je déteste vraiment / "
            "Comment oses-tu gâcher / Ça suffit, arrête avec / Je suis furieux, tu as gâché"
        ),
    },
}

TOPICS: dict[str, tuple[str, ...]] = {
    "en": _parts(
        "my letter / our garden / your old car / this journey / my first job / our little house / "
        "your music / the long walk / her picture / that evening"
    ),
    "de": _parts(
        "meinen Brief / unseren Garten / dein altes Auto / diese Reise / meine erste Arbeit / "
        "unser kleines Haus / deine Musik / den langen Weg / ihr Bild / jenen Abend"
    ),
    "es": _parts(
        "mi carta / nuestra huerta / tu vieja bicicleta / esta excursión / mi primera tarea / "
        "nuestra casita / tu música / la larga caminata / su fotografía / aquella tarde"
    ),
    "fr": _parts(
        "ma lettre / notre jardin / ta vieille voiture / ce voyage / mon premier travail / "
        "notre petite maison / ta musique / cette longue promenade / son image / cette soirée"
    ),
}
