"""The closed word lists that the rules need, lower case.

Closed means: a rule asks a list only where grammar cannot decide ("in a red dress" and "in a red car" have the same
syntax). A word that is on no list gets the general reading, so a list may lack words; it must not have wrong ones.
Lists of nouns hold singulars; `singular` takes the plural's ending off before a look-up.
"""

from attnmod.parser.plurals import IRREGULAR_PLURALS as IRREGULAR_PLURALS
from attnmod.parser.plurals import singular as singular
from attnmod.parser.plurals import words

# -- determiners and numbers ------------------------------------------------------------------------------------------

# "a cat" is one cat
ARTICLES = words("a an one")
# with a singular noun these too mean one: "the cat", "his hat", "another device"
SINGULAR_DETERMINERS = words("the this that each every another either neither his her its their my your our whose")
# whose part it is: of a person, of a thing or an animal, of either
OWNING = {"his": "person", "her": "person", "its": "thing", "their": "any"}
# quantities without a number: the count stays open
VAGUE_QUANTITIES = words("several many some few any various multiple numerous countless more most all other enough no")
DETERMINERS = ARTICLES | SINGULAR_DETERMINERS | VAGUE_QUANTITIES | words("these those both what which whose such half")
NUMBERS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100, "both": 2,
}  # fmt: skip
# nouns that are numbers: "a dozen roses", "two dozen eggs"
DOZENS = {"dozen": 12, "hundred": 100, "thousand": 1000}

# -- words around "of" ------------------------------------------------------------------------------------------------

# the number is in the noun: "a pair of shoes", "a couple of dogs"
COUNTED_GROUPS = {"pair": 2, "couple": 2, "duo": 2, "trio": 3, "quartet": 4, "dozen": 12}
# many things at once, number open: "a group of people"
GROUPS = words(
    "group bunch stack pile row flock herd pack crowd set collection cluster heap line swarm school array number "
    "lot variety handful series assortment bundle team band gang fleet pride litter troop mound load ton plenty "
    "majority range host mass string bouquet"
)
# one piece of something: the number counts pieces ("two slices of pizza")
PIECES = words(
    "piece slice wedge chunk bit part portion section segment sheet strip block lump drop scoop bite half quarter "
    "kind type sort loaf stick bar clump patch strand pinch dash splash layer shred hunk pat ball"
)
# a property spoken of as if it were a thing: "the smooth surface of the lake" is a smooth lake
ASPECTS = words(
    "surface texture shape color colour form silhouette outline line curve hue shade tone glow pattern appearance "
    "contour figure look feel body expanse sound scent smell aroma taste flavor flavour warmth beauty elegance "
    "edge brushstroke stroke detail intricacy finish"
)
# what belongs to the noun after "of": in "the bark of a tree" the tree owns the bark
PARTS = words(
    "bark leg arm eye ear nose tail wing petal leaf branch root stem trunk feather fur hair head face hand foot "
    "paw roof door window wall handle wheel seat lid blade needle thorn collar sleeve button screen hood engine "
    "sail page cover tip peak back front top bottom side skin shell horn mane beak claw fin scale string key lens "
    "strap sole heel tire tyre trunk mouth tooth lip cheek finger toe chest neck shoulder spine label frame "
    "bumper grille carving ceiling floor rim surface lining base knob hinge hem brim buckle zipper cuff petals stalk "
    "entrance gate doorway interior exterior web spout pedal fender windshield mast deck hull balcony porch chimney "
    "facade staircase tower steeple dome arch crown cushion flame ember ash inside"
)
# where, not what: "to the left of", "on top of", "in the middle"
SPATIAL = words(
    "left right top bottom front back side middle center centre edge corner foreground background rear end inside "
    "outside distance midst vicinity proximity base foot head bend underside north south east west lefthand "
    "righthand upper lower forefront horizon"
)

# how things are arranged: "in a row"
ARRANGEMENTS = words("row pile line circle group stack heap queue cluster column ring crowd bunch")
# adjectives that may stand before those: "on the far left"
SPATIAL_MODIFIERS = words("very far other opposite same hand exact bottom upper lower")
# adjectives and adverbs that relate two things: "next to", "close to"
RELATING = words("next close adjacent opposite nearby away far apart alongside parallel perpendicular")

# -- the picture itself -----------------------------------------------------------------------------------------------

# what is drawn, painted or shot: "a photo of a cat" (a medium before "of" at the start, and in tails)
MEDIA = words(
    "photo photograph picture image painting drawing sketch illustration portrait render rendering closeup "
    "close-up shot snapshot watercolor watercolour artwork art poster cartoon anime comic manga wallpaper print "
    "engraving etching lithograph collage mosaic fresco view scene depiction representation still selfie polaroid "
    "pencil vector logo icon sticker clipart cinemagraph screenshot footage film video concept diagram "
    "infographic model figurine macro panorama diorama caricature graffiti oil gouache pastel charcoal ink "
    "woodcut blueprint cutaway lay cover character card knolling exposure visualization graphic design pixel-art "
    "line-art lineart 3d-render stock-photo photography mockup"
)
# nouns for the picture itself, where it is spoken of: "the photo shows"
PICTURES = words(
    "photo photograph picture image painting illustration drawing scene artwork composition work shot view render "
    "sketch "
    "portrait frame still rendering"
)
SHOWING = words(
    "shows show depicts depict features presents captures portrays displays illustrates represents showcases "
    "contains is "
    "has captured shown focuses"
)
LABELS_OF_STYLE = words(
    "style mood lighting camera composition colors colours color colour palette medium atmosphere quality technique "
    "shot "
    "angle lens perspective effects texture textures theme genre art artist aspect format resolution render tone focus"
)
LABELS_OF_ABSENCE = words("avoid exclude negative")
# nouns of looks and quality: a comma segment that ends in one is style
STYLE_NOUNS = words(
    "scenery fantasy genre chibi bloom duo albino monochrome anime manga gothic steampunk vaporwave retrowave "
    "synthwave "
    "horror silhouette thirds rule space hour look effect blur lora concept sheet editorial still closeup cutaway "
    "gradient posing pose watercolor monochromatic vignetting dieselpunk solarpunk biopunk cottagecore academia scheme "
    "lighting masterpiece quality resolution style bokeh artstation deviantart pixiv cgsociety behance "
    "photography photorealism realism surrealism impressionism cubism minimalism vaporwave cyberpunk steampunk "
    "aesthetic palette composition dof grain exposure contrast saturation shading raytracing ray-tracing "
    "rendering octane unreal blender engine maya 35mm 50mm 85mm f/1.8 f/2.8 dslr nikon canon kodak portra leica "
    "lens shot angle perspective focus depth detail details vibe mood atmosphere hdr uhd hd 4k 8k 16k 2k 1080p "
    "cgi 3d vfx trending award artist ghibli pixar disney isometric art concept-art illustration painting photo "
    "photograph drawing sketch render watercolor anime digital-art wallpaper tones colors colours background-blur "
    "solo absurdres highres rating illustration artwork lowres signature watermark hour light flare shadow "
    "chiaroscuro impasto noir aberration vignette linework brushwork cel-shading hdri sfumato pointillism "
    "sharpness clarity"
)
# words that make a comma segment without a thing of its own a matter of style
STYLE_WORDS = words(
    "cinematic photorealistic realistic hyperrealistic hyper-realistic photo-realistic ultrarealistic detailed "
    "ultra-detailed highly-detailed intricate sharp masterpiece artstation trending volumetric dramatic moody "
    "vibrant minimalist minimalistic surreal abstract isometric stylized stylised professional award-winning "
    "aesthetic high-quality high-resolution hi-res low-poly monochrome grayscale greyscale sepia vintage retro "
    "ethereal dreamy cartoonish painterly hdr uhd 4k 8k octane unreal rendered beautiful stunning epic elegant "
    "ultra hyper best high highly very soft ambient natural studio bokeh digital concept matte oil pastel warm raw "
    "impressionist expressionist baroque gothic synthwave noir whimsical atmospheric chiaroscuro "
    "cool lit backlit symmetrical centered closeup close-up macro wide-angle"
)
# single words that are style wherever they stand
STYLE_MARKS = words(
    "4k 8k 16k 2k hd uhd hdr 1080p masterpiece artstation photorealistic hyperrealistic ultra-detailed cgi dslr "
    "bokeh absurdres highres"
)

# -- the scene --------------------------------------------------------------------------------------------------------

# when: a scene with or without a preposition
TIMES = words(
    "night day dawn dusk sunset sunrise noon midnight morning evening afternoon twilight daytime nighttime winter "
    "summer autumn midday daylight moonlight sunlight starlight candlelight rain fog mist snowstorm storm "
    "rainstorm thunderstorm blizzard sandstorm snowfall eclipse christmas halloween weather dark darkness "
    "today summertime wintertime season hour"
)
# where: a scene after "in", "on", "at" and the like
PLACES = words(
    "forest wood woods jungle beach park field meadow city town village street alley highway room bedroom "
    "bathroom kitchen garden yard backyard desert mountain hill valley sky space ocean sea lake river pond snow "
    "sand grass countryside landscape background environment setting world home apartment office classroom "
    "library museum restaurant cafe shop store market mall supermarket station airport stadium gym playground zoo "
    "farm hallway basement attic garage studio theater theatre church temple palace hospital laboratory factory "
    "warehouse workshop universe galaxy underwater savanna savannah swamp canyon cave island coast shore seaside "
    "harbor harbour dock pier plaza square sidewalk pavement crosswalk intersection parking wilderness mid-air nature "
    "prairie tundra rainforest orchard vineyard greenhouse courtyard patio lawn lobby corridor nightclub ballroom "
    "festival parade party wedding concert event ceremony area air shade breeze wind ruins rooftop fairground "
    "suburb neighborhood downtown skyline horizon dusk gallery arena rink slope trail interior reserve campsite "
    "bakery fair range mars moon salon spa campus stage court course driveway shelter bar pub diner clinic pasture "
    "marsh "
    "racetrack track battlefield cemetery graveyard circus carnival lounge den nursery cellar loft terrace cafeteria "
    "foyer vestibule entryway tunnel bay outdoors indoors dorm auditorium bazaar port village clearing grove canal "
    "bedside cafe café courtyard rooftop shop platform shore balcony subway exhibit exhibition sun sunshine"
)
# places with an outline of their own: as a tag without a preposition they are things ("mountains, river, log cabin")
LANDMARKS = words(
    "mountain hill river lake pond castle island cave palace temple church tower moon canyon volcano pier dock sun"
)
# the prepositions that set a scene; "near a lake" and "next to a forest" speak of things
SCENE_PREPOSITIONS = words(
    "in on at into during inside within across through throughout against under amid amidst among"
)
# places that are a scene after "on" too; on others things stand ("on a hill", "on the grass")
SURFACE_PLACES = words(
    "beach street road sidewalk field farm island coast shore moon mars campus playground plaza prairie savanna court "
    "stage slope trail"
)
# grounds that are surfaces of the scene only with "on" or "against"
BACKDROPS = words("background backdrop")
# as tags they are things: the first in any case, the second if they are described ("stormy sea")
ALWAYS_THINGS = words("castle snow smoke ruin pond sky")
DESCRIBED_PLACES = words("sea ocean sky street alley road field garden room wall path rooftop nursery")
# where, in a word: a scene as a tag ("1girl, outdoors")
WHEREABOUTS = words("outdoors indoors outside inside underwater outdoor indoor")
# before the name of a place: a thing of that name
SMALL_COPIES = words("toy miniature dollhouse lego gingerbread")
# who looks at the picture is not in it: "looking at the viewer", "smiling at the camera"
ONLOOKERS = words("viewer camera")

# -- verbs that nest --------------------------------------------------------------------------------------------------

WEARING = words("wearing wears wear wore dressed clad donning dons sporting sports adorned")
HOLDING = words(
    "holding holds hold held carrying carries carry carried gripping grips clutching clutches wielding wields "
    "grasping grasps cradling cradles bearing bears brandishing brandishes hugging"
)
HAVING = words("has have had having features featuring feature featured includes including contains containing")
# participles with a preposition that say what something is made of or full of
MADE_OF = words("made built constructed crafted carved formed composed woven knitted sculpted fashioned")
FILLED_WITH = words(
    "filled covered topped decorated adorned coated layered lined stuffed loaded packed painted dusted "
    "garnished sprinkled draped wrapped brimming bursting overflowing teeming crammed brimful overgrown engraved "
    "embroidered tiled drenched soaked laden strewn "
    "littered full equipped fitted studded encrusted bathed dipped smothered wreathed"
)
LINKING_VERBS = words(
    "be is are was were been being 's 're looks look looking looked seems seem appears appear turns stays"
)
BE_FORMS = words("be is are was were been being 's 're am")
# verbs whose bare adjective describes the subject: "the tub sits empty", "lights flash yellow"
STATE_VERBS = words(
    "sits sit sitting stands stand standing lies lay lays lying flash flashes glow glows shine shines turn"
)
# irregular pasts, which are never nouns though a tagger may say so
PASTS = words(
    "swam sat stood flew sang drove wrote came went grew ate hung shone ran rode fell leapt crept slept wept swept "
    "clung sprang stung swung shrank knelt dove threw caught brought took gave"
)
# -ing and -s forms that the tagger likes to call nouns after a noun
POSTURES = words(
    "dancing posing leaning kneeling hanging climbing singing laughing crying waiting talking resting crouching "
    "lounging relaxing hovering waving kissing standing sitting lying laying riding walking running flying jumping "
    "swimming eating sleeping playing looking "
    "holding wearing carrying sits stands lays flies floats runs walks jumps eats sleeps parked perched seated"
)

# "looking at the city": the place is a thing there
LOOKING = words("look looks looking looked stare stares staring gaze gazes gazing pointing points")
# between a thing and the text that is written on it: 'a sign that says "open"'
SAYING = words(
    "that which says say saying said reads read reading with the a word words text inscription letters labeled "
    "labelled titled named called written on it , : is spelling spells printed displaying displays"
    " showing shows painted"
)
TELLING = words("says say saying said reads reading spells spelling titled labeled labelled called named")
WRITING = words("word words text inscription letters letter slogan caption title")

# -- negation ---------------------------------------------------------------------------------------------------------

AVOIDING = words("avoid exclude remove omit skip")
NEGATING_DETERMINERS = words("no zero neither")
NEGATING_PREPOSITIONS = words("without sans minus lacking excluding except")

# -- kinds of things --------------------------------------------------------------------------------------------------

CLOTHING = words(
    "headphone halo tiara eyepatch choker earring necklace bracelet headband hairband goggle monocle headset hoodie "
    "overcoat "
    "wig gauntlet breastplate visor beanie backpack tracksuit waistcoat wetsuit leotard stocking sock bandana brooch "
    "dress shirt t-shirt tshirt jacket coat suit hat cap pants jeans shorts skirt sweater hoodie uniform costume "
    "robe gown kimono sari scarf gloves shoe boot sneaker sandal sock tie bow-tie vest blouse trousers leggings "
    "bikini swimsuit tuxedo armor armour cloak cape apron helmet mask glasses sunglasses goggles outfit clothes "
    "clothing overalls pajamas raincoat sundress tutu cardigan poncho blazer turban crown veil attire garb "
    "tunic tank-top jumpsuit spacesuit heels chaps jersey spectacles headscarf hijab beret turtleneck denim "
    "wear footwear sportswear underwear peacoat parka necktie bandana lingerie stockings corset loincloth"
)
BODY_PARTS = words(
    "horn bun twintail forearm fist finger forehead chin shoulder chest lap thigh eyelid dreadlock curl stubble plume "
    "hair eye beard mustache moustache face skin nose ear arm leg hand foot finger lip mouth tooth tail wing fur "
    "claw paw mane whisker beak tattoo freckle braid ponytail bangs eyebrow eyelash cheek smile "
    "muscle fang tusk antler pigtail haircut hairstyle tongue neck nostril elbow knee wrist ankle"
)
PEOPLE = words(
    "paladin samurai blacksmith beekeeper mechanic gardener tailor monk diver "
    "man woman person boy girl child kid baby toddler guy lady gentleman couple adult teenager student teacher "
    "doctor nurse chef soldier knight king queen prince princess wizard witch astronaut cowboy pirate ninja "
    "samurai warrior player athlete dancer artist musician singer farmer worker fisherman policeman officer "
    "fireman firefighter skier skater surfer skateboarder snowboarder bicyclist cyclist biker rider driver pilot "
    "sailor hunter customer waiter waitress bride groom mother father mom dad parent son daughter brother sister "
    "friend monk nun priest clown robot elf fairy mermaid vampire zombie angel demon monster alien superhero "
    "character figure model human skeleton ghost wife husband grandmother grandfather grandma grandpa tourist "
    "passenger pedestrian batter pitcher umpire catcher boxer pianist guitarist drummer biker gardener volunteer "
    "owner partner baker painter sculptor builder mechanic teammate coach maid swimmer runner climber hiker explorer "
    "scientist judge butler thief detective barista bartender shopper traveler wanderer neighbor guest family crowd"
)
MALE = words(
    "man boy guy gentleman king prince wizard cowboy policeman fireman fisherman groom father dad son brother husband "
    "grandfather grandpa monk priest lord emperor uncle waiter actor samurai clown"
)
FEMALE = words(
    "woman girl lady queen princess witch mermaid bride mother mom daughter sister wife grandmother grandma nun "
    "waitress "
    "actress maid goddess empress aunt ballerina"
)
ANIMALS = words(
    "dog cat puppy kitten bird horse pony cow bull sheep lamb goat "
    "pig rabbit bunny mouse rat hamster squirrel fox wolf bear panda lion tiger leopard cheetah elephant giraffe "
    "zebra monkey gorilla ape chimpanzee deer moose elk kangaroo koala raccoon otter beaver hedgehog bat owl "
    "eagle hawk parrot crow raven penguin duck goose swan chicken rooster hen turkey peacock flamingo pigeon dove "
    "turtle tortoise frog toad snake lizard crocodile alligator dinosaur dragon unicorn fish shark whale dolphin "
    "octopus crab lobster bee butterfly ant spider insect animal creature camel donkey llama alpaca seal "
    "walrus hippo rhino hippopotamus rhinoceros corgi retriever poodle bulldog duckling calf foal fawn cub gecko "
    "salamander jellyfish snail worm caterpillar ladybug moth dragonfly heron pelican sparrow robin hummingbird ostrich"
)
ANIMATE = PEOPLE | ANIMALS
# what is done, not shown: "taking a bite", "telling a story"
EVENTS = words(
    "bite nap walk stroll tour trick break conversation lesson class relief time fun way look turn rest ride "
    "performance presentation speech talk idea thought feeling sense story joy peace love hope music melody song "
    "game soccer football basketball baseball tennis yoga fetch calligraphy skill routine project plan problem "
    "exercise research course competition race protest memory life jump move adventure meal-time pose ease "
    "testament grace speed temptation innovation romance ambiance care sight golf hockey cricket rugby "
    "chess poker volleyball badminton tag hide-and-seek duet solo concerto photoshoot shoot interview meeting "
    "rehearsal practice training workout dinner lunch breakfast supper brunch "
    "marathon dive swim run hike sprint leap backflip somersault handstand "
    "pose dance waltz ballet yawn nod hug kiss handshake smile laugh chat discussion debate joke prayer fun "
    "homework chore business work job show party rhyme tune lullaby trip journey vacation picnic celebration ride"
)
# what cannot be pointed at: "a creature of stealth and beauty"
ABSTRACTIONS = words(
    "harmony beauty power precision stealth elegance memory tranquility serenity meditation entertainment "
    "relaxation perfection essence strength courage wisdom freedom contrast temptation innovation artistry "
    "sophistication nostalgia mystery wonder awe charm comfort luxury chaos silence confidence testament ingenuity "
    "ambition growth survival witness passage reminder symbol symphony celebration affection delight excitement "
    "happiness sadness anger fear pride enthusiasm curiosity determination patience imagination creativity "
    "knowledge truth justice spirit soul destiny fate hope faith despair solitude peace calm coziness warmth "
    "simplicity complexity grandeur majesty splendor prosperity progress history tradition culture heritage "
    "civilization humanity resilience endurance perseverance strength vitality energy momentum motion rhythm "
    "melody tune music fashion attention advantage importance interest inspiration contemplation concentration "
    "anticipation amusement admiration gratitude relaxation leisure pleasure joy love grief passage eternity "
    "sense past future mind infinity dignity purity innocence youth romance intimacy friendship teamwork unity "
    "palette viewer bokeh saturation composition manner storytelling perspective editorial childhood "
    "blend touch hint fusion interplay juxtaposition mixture "
    "mix glimpse appearance use quality focus hesitation grace calm mood atmosphere vibe ambience aura tone "
    "diversity agreement disbelief architecture voice lullaby sound noise laughter whisper echo applause triumph"
)
# what the lexicon knows as an event, a state or a quality, and everybody can point at
VISIBLE = words(
    "fire bonfire campfire flame blaze glow shadow shade spotlight halo scar explosion droplet drop beam spark wave "
    "dancing "
    "clutter pattern design vanity wrench heart meter swing tap roll measure ghost skeleton gold patch background "
    "streak "
    "track splash puddle rainbow smile laughter bubble wrinkle tear blush light lightning sparkle ripple trail stain "
    "footprint crack hole scratch dent stripe dot spot line circle square triangle rectangle heart star cross spiral "
    "ring "
    "display exhibit blanket crowd parade couple pair opening entrance corner quiver scales tears rays ray halo spell "
    "painting drawing photo picture poster portrait sketch print map mural banner label sign letter note text"
)
# nouns for a picture as a whole, said of it after a comma: "..., a masterpiece of color and texture"
VERDICTS = words(
    "masterpiece testament witness reminder symbol celebration spectacle sight study tribute ode homage example "
    "explosion feast riot expression ritual treat dream promise portrayal display depiction reflection creation"
)
# what is taken with a camera, or in other set phrases: "taking photos of a fountain"
TAKING = words("taking takes take took snapping snaps snap shooting shoots making makes")
TAKEN = words("photo photograph picture selfie video note step breath snapshot shot turn seat care")
# what one works with: "a chef cutting vegetables with a knife" holds the knife
TOOLS = words(
    "knife brush paintbrush spoon fork chopstick pen pencil hammer saw broom mop camera hand stick bat racket racquet "
    "club sword axe spear bow shovel rake scissors needle phone hose net rod tool magnifying-glass telescope "
    "binoculars flashlight torch crayon chalk towel sponge whip leash rope chisel wrench screwdriver"
)
COLOURS = words(
    "red green blue yellow orange purple pink brown black white gray grey gold golden silver beige tan turquoise "
    "teal cyan magenta violet indigo maroon navy crimson scarlet ivory cream bronze copper lavender lime olive "
    "khaki coral peach mint aqua amber charcoal blonde blond brunette multicolored colorful colourful dark light "
    "bright pale"
)
MATERIALS = words(
    "wood wooden metal metallic glass plastic leather rubber fabric stone brick marble steel iron gold silver "
    "bronze copper cotton wool silk velvet felt paper cardboard ceramic porcelain clay concrete ice crystal "
    "diamond denim lace straw bamboo wicker fur linen satin suede tin brass chrome aluminum granite sand snow "
    "fleece foam wax jade ivory pearl obsidian slate tile lego origami yarn chocolate stainless fluffy felted "
    "quartz amber"
)
# adjectives that stand after their noun: "a glass full of milk", "a zebra alone"
PRONOUNS = words(
    "i you he she it we they me him her us them one ones mine yours hers ours theirs myself yourself himself herself "
    "itself ourselves themselves each everyone everybody everything someone somebody something anyone anything nobody "
    "nothing none others another both all some many several this that these those there what who whom which"
)
# what stands behind a noun as an adverb; another word there that a tagger calls one is a noun ("a fire hydrant")
ADVERBS = words(
    "together alone away apart outside inside nearby indoors outdoors upright here there back down up off out along "
    "across around over too also very just so forward backward high low fast well again now then today overhead "
    "above below behind ahead upstairs downstairs downhill uphill upside aside not never almost nearly quite rather "
    "as even only still always often once twice underneath underwater in on by through past about midair abreast"
)
NEVER_NOUNS = words("asleep awake alone aglow ablaze afloat")
POSTNOMINAL = words(
    "full alone asleep awake open closed empty visible available ready close together aglow ablaze afloat"
)
# -ing forms of verbs without an object: before a noun they modify it ("glowing red eyes", "in shining armor")
GLOWING = words(
    "crashing crackling roaring rolling rushing spinning hovering swaying "
    "glowing shining burning flowing flying smiling sleeping blooming falling sparkling glittering shimmering melting "
    "floating trailing rising setting billowing flickering gleaming twinkling swirling drifting laughing dancing "
    "soaring towering twisting winding soothing charming calming"
)
# participles without -ed that say how a thing is: "the leg is broken"
STATES = words("broken torn worn lit frozen bent split shut burnt overgrown woven knit swollen sunken rotten")
# participles with a colour behind them: "a door painted red"
PAINTED = words("painted colored coloured dyed stained")
# colours that are nothing else: "a blue and a red balloon" is two balloons, "an orange and a red balloon" is not
PURE_COLOURS = words("red green blue yellow purple pink brown black white gray grey beige turquoise cyan magenta teal")
# colours before a participle and a noun: "an orange checked circle"
PLAIN_COLOURS = PURE_COLOURS | words("orange gold silver violet tan maroon lavender")
# second halves of two-word modifiers: "a gold colored dog", "a snow covered slope"
JOINED_PARTICIPLES = words(
    "colored coloured covered sized shaped styled topped filled lined striped tiled patterned themed inspired "
    "haired eyed legged capped powered driven made painted flavored scented looking"
)
# what needs no evidence beyond these lists
THINGS = CLOTHING | BODY_PARTS | ANIMATE | PARTS | TOOLS | LANDMARKS | VISIBLE
