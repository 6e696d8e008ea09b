"""Words of shops that neither the drawn catalogue nor WordNet's nouns name: colours as mixtures, and phrases."""

from __future__ import annotations

# A colour as shares of the catalogue's colours that look most like it.
COLOURS: dict[str, dict[str, float]] = {
    "turquoise": {"light blue": 0.5, "green": 0.5},
    "teal": {"green": 0.5, "blue": 0.25, "navy": 0.25},
    "burgundy": {"red": 0.5, "brown": 0.3, "purple": 0.2},
    "maroon": {"red": 0.5, "brown": 0.5},
    "khaki": {"beige": 0.5, "brown": 0.25, "green": 0.25},
    "olive": {"green": 0.6, "brown": 0.4},
    "mustard": {"yellow": 0.6, "brown": 0.4},
    "coral": {"pink": 0.4, "orange": 0.4, "red": 0.2},
    "peach": {"orange": 0.4, "beige": 0.3, "pink": 0.3},
    "lavender": {"purple": 0.5, "light blue": 0.25, "pink": 0.25},
    "mint": {"green": 0.5, "white": 0.3, "light blue": 0.2},
    "ivory": {"white": 0.7, "beige": 0.3},
    "cream": {"white": 0.5, "beige": 0.5},
    "charcoal": {"grey": 0.5, "black": 0.5},
    "gold": {"yellow": 0.5, "brown": 0.25, "beige": 0.25},
    "golden": {"yellow": 0.6, "orange": 0.4},
    "silver": {"grey": 0.7, "white": 0.3},
    "rose gold": {"pink": 0.5, "beige": 0.5},
    "magenta": {"pink": 0.5, "purple": 0.5},
    "tan": {"beige": 0.6, "brown": 0.4},
    "pastel": {"pink": 0.4, "light blue": 0.4, "white": 0.2},
    "neon": {"yellow": 0.5, "green": 0.3, "orange": 0.2},
    "dark green": {"green": 0.7, "black": 0.3},
    "dark red": {"red": 0.6, "brown": 0.4},
    "dark blue": {"navy": 0.8, "blue": 0.2},
    "dark grey": {"grey": 0.5, "black": 0.5},
    "light grey": {"grey": 0.5, "white": 0.5},
    "gray": {"grey": 1.0},
    "violet": {"purple": 1.0},
}

# What people type into a shop's search; their vectors follow from their words.
PHRASES: tuple[str, ...] = tuple(
    """faux leather|knitted|quilted|metallic|multicoloured|multicolored|leopard print|animal print|houndstooth|tie-dye
    colour block|color block|graphic print|embroidered|sequined|ruffled|pleated|ripped|distressed|faded|off the shoulder
    puff sleeve|three-quarter sleeve|cropped|oversized|slim fit|skinny|bootcut|flared|wide leg|high waisted|asymmetric
    puffer jacket|denim jacket|dungarees|leggings|joggers|chinos|cargo trousers|culottes|pyjamas|pajamas|heels|stilettos
    wedges|loafers|trainers|sneakers|sandals|flip-flops|slippers|ankle boots|wellington boots|earrings|gloves|casual
    formal|sporty|elegant|vintage|for men|for women|for boys|for girls|for a baby|unisex|denim|leather|suede|cotton|wool
    cashmere|silk|satin|linen|velvet|corduroy|lace|chiffon|fleece|crochet|mesh|down|nylon|canvas|fur|plaid|tartan
    gingham|camouflage|paisley|polka dot|pinstripe|herringbone|embroidery|logo|hood|zip|button|pocket|drawstring|belt
    collar|cuff|turtleneck|crew neck|strapless|halter|midi|maxi|mini|wrap|blouse|tunic|cardigan|parka|trench coat
    bomber jacket|blazer|waistcoat|jumpsuit|romper|swimsuit|bikini|robe|underwear|bra|tights|handbag|tote|clutch
    backpack|wallet|purse|suitcase|sunglasses|watch|necklace|bracelet|ring|scarf|beanie|cap|tie|bow tie|umbrella
    summer|winter|autumn|fall|spring|party|wedding|office|beach|wood|wooden|metal|glass|plastic|ceramic|paper|stone
    striped|dotted|checked|floral|long sleeves|short sleeves|sleeveless|v-neck|round neck|button-up|hooded""".replace(
        "\n", "|"
    ).split("|")
)
PHRASES = tuple(dict.fromkeys(phrase.strip() for phrase in PHRASES))

# Words that no gloss uses often enough, by others that say nearly the same.
ALIASES = {
    "multicoloured": "colorful cloth",
    "multicolored": "colorful cloth",
    "houndstooth": "checked tweed",
    "tie-dye": "dyed cloth",
    "logo": "emblem",
    "sequined": "sequin gown",
    "oversized": "loose garment",
    "bootcut": "flared jean",
    "unisex": "garment",
}
