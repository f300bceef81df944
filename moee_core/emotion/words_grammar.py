"""The words around an emotion: how much, not, instead, and those that say nothing about it.

A ``DEGREES`` line is a place and a factor. "pre" acts on what follows, "post" on what comes before, "both" on whichever
is there, and "dual" words are feelings of their own where no other follows ("pretty", "terribly"). Factors multiply the
natural intensity of a word.
"""

from __future__ import annotations

DEGREES = """
both 0.1: imperceptibly, almost not at all, almost imperceptibly, with hardly any
pre 0.1: hardly, hardly any, scarcely, scarcely any, next to no, close to no, almost no, little to no, hardly looks
pre 0.1: hardly ever
both 0.15: just barely, only just
pre 0.15: barely, barely any, barely a, only barely, barely perceptible, barely visible, barely there, barely noticeable
pre 0.2: not very, not too, not overly, not so, not that, not all that, not terribly, not extremely, not particularly
pre 0.2: not especially, not super, not really all that, none too, not much, not quite so, the faintest
pre 0.2: faintest hint of
pre 0.2: trace of, traces of, the merest, merest hint of, a whisper of, whiff of, smidgen of, a smidge, an ounce of
pre 0.2: a shred of
both 0.2: ever so slightly, very slightly, faintly, a smidgen, a tad, minimally, very faintly, a tiny bit, a wee bit
both 0.2: a teensy bit
both 0.2: just a tiny bit, only faintly, the tiniest bit, the slightest bit, just a touch, a trifle, a whisker
both 0.2: very little
pre 0.25: hint of, hints of, tinge of, tinged with, undertone of, undertones of, undercurrent of, dash of, pinch of
pre 0.25: suggestion of
pre 0.25: flicker of, glimmer of, shadow of, suspicion of, sprinkling of, drop of, splash of, soupcon of, with a faint
pre 0.25: the slightest
pre 0.25: a faint, faint, subtle, subtle hint of, faint hint of, slight hint of, tiny, tiniest, little hint of, minor
pre 0.25: minimal
both 0.25: subtly, mildest, weakly
pre 0.3: touch of, touched with, note of, streak of, flash of, a little touch of, mild, slight, small, weak, low, light
pre 0.3: modest
both 0.35: slightly, slight bit, a little, a little bit, just a little, just a bit, mildly, lightly, only slightly
both 0.35: marginally
both 0.35: only a little, vaguely, discreetly, a touch, a shade
both 0.4: a bit, bit, softly, little bit, to some extent, to a small degree, quietly, inwardly, understated, kind of
both 0.4: kinda, sort of
both 0.4: sorta, a wee, gently, kind of a, sort of a, not entirely, not completely, not fully, not wholly, not totally
both 0.4: half way, ish
pre 0.45: suppressed, suppress, stifle, stifled, contain, contained, restrained, restrain, repressed, repress, muted
pre 0.45: controlled
pre 0.45: swallow, bottled up, bite back, biting back, choke down, try not to, tries not to, fight urge to
pre 0.45: fighting urge to, resist urge to, struggle not to, hold back, holding back, trying not to, muffled, less
pre 0.45: lesser
both 0.5: half, semi, somewhat, partly, partially, in part, demi, some, moderate amount of, fifty percent, a degree of
both 0.5: a measure of
pre 0.65: a little less, slightly less, a bit less, bit less, somewhat less
pre 0.3: a lot less, much less, far less
pre 1.1: a little more, a bit more, slightly more
pre 0.6: some kind of, some sort of, somehow, almost, nearly, close to, verging on, on verge of, bordering on, near
pre 0.6: quasi, a certain
both 0.65: moderately, moderate, medium, reasonably, tolerably, passably, more or less, averagely, mid level
both 0.65: in moderation, to a degree
both 0.75: rather, fairly, relatively, fair amount of, to a fair degree, comparatively, a fair bit
pre 0.75: fair bit of
both 0.85: mostly, mainly, largely, primarily, predominantly, chiefly, for the most part, in the main, generally
both 0.85: overall, basically
both 0.9: quite, a good deal, pretty much
dual 0.9: pretty
both 1: fully, clearly, visibly, evidently, obviously, plainly, openly, noticeably, distinctly, truly, genuinely, purely
both 1: real, genuine, clear
both 1: visible, definite, definitely, certainly, proper, obvious, honest, honestly, sincerely, sincere, pure, simply
both 1: downright plain
pre 1.15: full of, filled with, lots of, a lot of, plenty of, loads of, tons of, heaps of, a good deal of
pre 1.15: a great deal of, much
pre 1.15: strong, way, big, considerable, real sense of, loud, broad, broadly, decidedly, more, notable, marked
pre 1.15: well and truly
both 1.15: a lot, strongly, loudly, greatly, considerably, markedly, a great deal, a good bit, even more, indeed
both 1.15: much so, plenty
dual 1.15: great, badly, good and
pre 1.25: very, really, so, too, such, most, well, seriously so
both 1.25: very much, so much, highly, deeply, terrifically, particularly, especially, super
both 1.25: exceedingly, deep, heavily, visibly very, than ever, than ever before, very much so
both 1.25: heavy, high, thoroughly, ever so, that much, unusually, exceptionally, remarkably, majorly, mighty, hella
both 1.25: wicked, dead
both 1.25: profound, profoundly, dearly, mega, ultra, uber, proper, bloody, damn, damned, freaking, fricking, frigging
both 1.25: fucking, flipping
both 1.25: goddamned, effing, extra, all too, only too, far too, way too, to bits, through and through, at heart
both 1.25: high level of, raw
dual 1.25: awfully, terribly, dreadfully, frightfully, intensely, wildly, fiercely, crazy, bitterly, violently
dual 1.25: desperately, furiously
dual 1.25: seriously, horribly, shockingly, amazingly, surprisingly, painfully, scarily, incredibly, unbelievably
dual 1.25: sickeningly
dual 1.25: disgustingly, outrageously, deliriously, brutally, tragically, astonishingly, stupidly, ridiculously
dual 1.25: obscenely, deadly
both 1.35: completely, totally, entirely, wholly, all, all over, absolute, complete, total, full blown, full on
both 1.35: out and out
both 1.35: outright, downright, altogether, to the core, from head to toe, full, through and through, perfectly
both 1.35: perfect, with every fibre
both 1.35: with all heart, with whole heart, from bottom of heart, in every way, huge, enormous, immense, massive, vast
both 1.35: giant, endless
both 1.35: boundless, unbridled, uncontrolled, unrestrained, sheer, intense, stark, powerful, powerfully, enormously
both 1.35: hugely, immensely
both 1.35: massively, vastly, insanely, ridiculous amount of, overwhelming, overflowing with, bursting with
both 1.35: brimming with, brimful of
both 1.35: overcome with, overcome by, consumed by, consumed with, eaten up with, eaten up by, stricken with
both 1.35: racked with, wracked with
both 1.35: seized by, gripped by, possessed by, blind with, mad with, wild with, crazy with, sick with, delirious with
both 1.35: drunk with
both 1.35: out of control, off charts, off scale, fit to burst, as can be, as anything, as hell, as fuck, af
both 1.35: like crazy, like mad, like hell
both 1.35: big time, no end, to no end, hopelessly, out of mind with, out of mind, to death, no end of
both 1.35: could not be more, can not be more
both 1.35: never been more, never been so, never felt so, never felt more, never so, never looked so, never seen so
both 1.35: never looked more
both 1.45: know no bounds, knows no bounds, know no limit, knows no limit, super duper, beyond imagination
both 1.45: extremely, extreme, utterly, utter, utmost, absolutely, overwhelmingly, uncontrollably, unbearably
both 1.45: beyond measure, infinitely
both 1.45: beside self with, besides self with, beside himself, beside herself, beside themselves, through roof
both 1.45: to the extreme, maximum
both 1.45: to the max, maximal, maximally, at maximum, as possible, as far as possible, up to eleven
both 1.45: turned up to eleven, at full blast
both 1.45: at full tilt, at full throttle, beyond words, beyond belief, beyond all, in the extreme, out of skin with
both 1.45: max, tremendously
both 1.45: tremendous, indescribably, indescribable, unspeakable, unspeakably, incomparably, at top of lungs
both 1.45: at top of voice, volcanically
pre 0.33: one third, a third, third
pre 0.66: two thirds
pre 0.25: quarter, a quarter, one quarter
pre 0.75: three quarters
both 0.1: ten percent
both 0.2: twenty percent
both 0.3: thirty percent
both 0.4: forty percent
both 0.5: fifty percent
both 0.6: sixty percent
both 0.7: seventy percent
both 0.8: eighty percent
both 0.9: ninety percent
both 1: hundred percent, one hundred percent, a hundred percent
"""

SIGNS = """
not: not, never, without, no, none of, none, neither, lack, lacks, lacking, lack of, absence of, absent, devoid of
not: free of, free from
not: zero, no longer, nor, stop, stops, quit, quits, cease, ceases, instead of, rather than, far from, anything but
not: everything but
not: nothing like, not trace of, not hint of, not ounce of, not shred of, not single, no trace of, no sign of
not: no hint of, no signs of
not: without trace of, without hint of, without sign of, without sign, without any, not bit, not least bit
not: not slightest, without slightest
not: not in slightest, not in least, not remotely, not even, not at all, not one bit, not any, no more, avoid, avoids
not: avoiding, refuse, refuses, used to be
not: used to, unable to, fail to, fails to, can not, exclude, excluding, except, except for, minus, but without
not: not even slightly
not: not even bit, no such thing as, not even hint of, not even trace of, not in any way, by no means, in no way
not: not remotely, cured of
not: opposite of, the opposite of, get rid of, rid of, over being, past being, as opposed to, not exactly, not really
not: not actually
gone: gone, vanish, vanished, vanishes, disappear, disappeared, fade, faded, fades away, no more, no longer
gone: not any more, evaporated
gone: not anymore, not at all, absent, missing, is over, nowhere, nowhere to be seen, melt away, melted away, subsided
gone: not in least, not in slightest
hide: hide, hides, hid, hidden, conceal, concealed, mask, masked, masking, disguise, disguised, cover up, covers up
hide: cover
behind: behind, beneath, under, underneath, with the help of
but: but, yet, however, though, although, while, whereas, nevertheless, nonetheless, still, on the other hand
but: but rather, but instead
but: but now, only, merely, just, instead, now, until now, simply
and: and, &, plus, as well as, along with, together with, mixed with, combined with, coupled with, paired with
and: blended with, crossed with
and: but also, as also, mingled with, meets, then, into, turning into, turn into, alongside, in addition to
and: verging into, laced with
or: or, nor
filler: mask of, picture of, face of, feeling of, wave of, surge of, fit of, kind of face, portrait of
filler: not only, not just, not merely, not simply, nothing but, no doubt, no question, without doubt, without question
filler: no wonder, not to mention
filler: no matter, can not help but, can not help, could not help but, could not help, can not stop, could not stop
filler: can not contain, could not contain
filler: can not hide, could not hide, barely hide, barely hides, hardly hide, hardly hides, can barely hide
filler: can hardly hide, unable to hide, poorly hidden
filler: barely contain, can barely contain, can hardly contain, barely contained, barely concealed, barely suppressed
filler: thinly veiled, ill concealed, fail to hide
filler: fails to hide, can not conceal, can not suppress, could not suppress, no less, without hiding
filler: nothing less than, no other than, unable to contain
filler: any more, anymore, any longer, no sooner, at least, all at once, at same time, at once, in between
filler: somewhere between, midway between
filler: right now, right away, all right then, once again, not afraid to show, of course, as if, as though, in front of
filler: as well, make sure, kind regards
filler: most likely, well then, as well, very moment, so that, so as to, such that, even though, is like, such as
filler: so to speak, no problem, if not
filler: that way, this way, all way, by way, way she, way he, in way, in such way, in way that, stop at nothing
filler: used to seeing, unable to stop, could not stop
filler: little girl, little boy, little child, little kid, big brother, big sister, little brother, little sister
filler: high school, old lady, young lady
side: left, right, one, on left, on right, on one side, one sided, one side, left side, right side, on left side
side: on right side, left hand side, right hand side
"""

FUNCTION = """
movement movements move moves moved moving
a an the this that these those some any each every both either another other others such same own one ones it its
itself whisper mutter mumble murmur speak talk say tell breathe nod stand sit listen read wait yawn answer reply
address announce i me my mine myself we us our ours ourselves you your yours yourself he him his himself she her hers
herself they them their theirs themselves who whom whose which what when where why how whoever whatever whenever
someone somebody something anyone anybody anything everyone everybody everything nobody noone nothing am is are was
were be been being do does did done doing have has had having will would shall should can could may might must ought
let lets get gets got gotten getting go goes went going gone come comes came coming make makes made making become
becomes became becoming turn turns turned keep keeps kept keeping stay stays stayed remain remains remained seem seems
seemed seeming appear appears appeared appearing look looks looked looking feel feels felt feeling feelings sound
sounds sounded sounding show shows showed shown showing act acts acted acting play plays played playing give gives gave
given giving take takes took taken put puts wear wears wearing wore worn display displays displayed displaying express
expresses expressed expressing expression expressions convey conveys conveying portray portrays portrayed depict
depicts depicted exhibit exhibits imagine picture pictured think thinks thought want wants wanted need needs needed try
tries tried trying start starts started starting begin begins began beginning use used using see sees seen saw find
finds found tells told says said saying speaks spoke spoken speaking talks talked talking ask asked respond react
reacts reacting reaction happen happened happens cause leave leaves bring brings brought like likes liked know knows
knew pretend pretends pretending please perform performs render suggest suggests suggesting betray reveals hold holds
held holding hear hears heard hearing set sets of to in on at by for from with about against between among into onto
upon over through during before after above below across along around behind beneath beside besides beyond inside
outside near off out up down under until till since towards toward via per within throughout without as than then so if
because though although while whereas and or nor but yet also too just only even still already again ever always often
sometimes usually now here there today tonight yesterday tomorrow moment moments once twice almost maybe perhaps
probably possibly apparently really actually simply rather quite very more most much many few less least lot bit little
all half whole enough else instead together apart away back forth soon later suddenly immediately finally eventually
first second last next well anyway however therefore thus hence no not never none neither cannot yes ok mm hm um uh er
person people man men woman women boy boys girl girls guy guys lady gentleman child children kid kids baby adult
teenager teen human character subject speaker actor actress model portrait avatar narrator presenter protagonist face
faces facial head voice tone mood emotion emotions emotional emotionally state manner way style kind sort type level
intensity degree amount mixture mix blend combination air aura vibe vibes attitude demeanour demeanor appearance
countenance gaze glance eyes eye eyebrow eyebrows brow brows forehead eyelid eyelids nose nostrils mouth lip lips cheek
cheeks chin jaw teeth tongue body hand hands camera viewer video clip scene frame shot image photo mother father mom
mum dad brother sister son daughter wife husband friend boss neighbour neighbor colleague teacher grandfather
grandmother grandpa grandma uncle aunt parent parents boyfriend girlfriend family old young elderly big thing things
time times day days night morning evening week year years minute minutes hour hours ago long percent cent maximum side
sides left right open close closed wide high low upper lower inner outer corner corners completely totally entirely
fully words word line lines text sentence news reach reaches walk walks walked walking run runs running cat dog story
reason isnt s t d ll m re ve o whether due owing thanks despite indeed exactly fact
"""

IRREGULAR = """
won win; lost lose; saw see; seen see; got get; gotten get; wept weep; felt feel; left leave; broke break; broken break
frozen freeze; froze freeze; shook shake; shaken shake; bit bite; bitten bite; found find; fell fall; fallen fall; rose
rise
risen rise; raised raise; sank sink; sunk sink; drew draw; drawn draw; sang sing; hid hide; hidden hide; fought fight;
stuck stick
stung sting; shone shine; grew grow; wore wear; worn wear; tore tear; torn tear; sprang spring; shrank shrink; shrunk
shrink
blew blow; blown blow; flew fly; flung fling; threw throw; thrown throw; drove drive; driven drive; stole steal; stolen
steal
took take; taken take; ate eat; eaten eat; drank drink; died die; dying die; lying lie; lied lie; came come; went go;
gone go
made make; heard hear; held hold; kept keep; met meet; sent send; slept sleep; smelt smell; spoilt spoil; spilt spill;
stood stand
swore swear; told tell; thought think; caught catch; bought buy; woke wake; woken wake; wrote write; ran run; began
begin; lit light
eyebrows eyebrow; eyes eye; lips lip; brows brow; lids lid; teeth tooth; children child; wives wife; feet foot; mice
mouse
burnt burn; hung hang; shot shoot; split split; spat spit; trod tread; trodden tread; became become; paid pay; cried
cry; sworn swear
leapt leap; knelt kneel; bent bend; bared bare; lay lie; knit knit; upset upset; cries cry; worse bad; worst bad;
better good; best good
happier happy; happiest happy; sadder sad; saddest sad; angrier angry; angriest angry; madder mad; gladder glad; said
say
himself self; herself self; themselves self; myself self; itself self; yourself self; ourselves self; mum mom; grandpa
grandfather
"""

# Right words that are one letter away from one of the lexicon, and are no slip of it.
CORRECT = """
determine determined determining detection console exited indexed radian radians flattened controlling animate
vulnerability
property properties string strings listen listened marked marker compose composer course cursed collection composed
stable
treated determines animation animated promoted complement complements reliable reliably decision decisions ranked relied
relies optimised optimise enhance enhanced breath bridge signing expiry boarder border window flight detected trouble
complexity resets resetting reset material materials conversion normalise stream streaming desert planned marring
scarred
starred staring starting sating stating carving serving moaning morning mourning marine martial marshal guesses greeting
collect collects collected corrected visibility visibly triggering boring adorned addition edition beauty nation station
violet violin delight hostel hospital raging ranging raining resigned designed assigned aligned arranged stranger
strange
manger danger angler dangle tangle single signal tragedy strategy comedy remedy sobering content contend contest context
consent concert concern convert hooded headed heated hatred haired sorted snorted shorted shirted started starved
storied
"""

# May stand between the words of a phrase.
BETWEEN = """
a an the his her my your their our its some this that these those one s just really very so own to on all is was are
were be been being has have had get gets got poor old little big such up
"""

# Do not end the reach of a negation between one negated thing and the next.
LINKS = """
a an the his her my your their our its any some of in about at by from for to with be being is are was look looks
looking looked feel feels feeling seem seems seeming sound sounds appear appears kind sort sign trace show shows showing
get getting on this that these those too all so very much and or nor & ,
"""

SUBJECTS = "he she they i we it you who which that"

# Between "could not" or "never" and a comparative: "could not be happier".
TO_BE = "be been being is was feel felt look looked seem seemed sound sounded seen"
