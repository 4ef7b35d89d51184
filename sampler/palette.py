"""The colours of entities: the same in the entity map, in its legend and in the picture of a prompt."""

Colour = tuple[int, int, int]

# Told apart also without red-green vision; after Okabe and Ito's palette, then repeated lighter.
ENTITY_COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (148, 103, 189),
)
NOBODYS_COLOUR: Colour = (128, 128, 128)
_LEGIBLE = 0.4  # of white's luminance: the brightest that letters on white may have


def entity_colour(entity: int) -> Colour:
    """RGB of an entity id; beyond the palette the colours come again, lighter; -1 is grey."""
    if entity < 0:
        return NOBODYS_COLOUR
    lap, index = divmod(entity, len(ENTITY_COLOURS))
    red, green, blue = (round(255 - (255 - channel) * 0.6**lap) for channel in ENTITY_COLOURS[index])
    return red, green, blue


def entity_ink(entity: int) -> Colour:
    """An entity's colour, darkened until letters in it read on white."""
    red, green, blue = entity_colour(entity)
    luminance = (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255
    share = min(1.0, _LEGIBLE / luminance) if luminance else 1.0
    return round(red * share), round(green * share), round(blue * share)
