"""What a face, a voice and a body do: the emotion each thing suggests and the action units it names.

A line of ``DISPLAYS`` may end in units, "| 12 .8, 6 .5": code and strength when nothing says how strongly. ``MOVES``
combines a part of the face with what it does, in any order of the words: "raised eyebrows", "her brows went up".
"""

from __future__ import annotations

DISPLAYS = """
happy 0.8 | 12 .8, 6 .5: smile, smiling, smiles, grinning face
happy 1 | 12 .9, 6 .7, 25 .6: grin, beam, beaming, broad smile, wide smile, big smile, bright smile, ear to ear
happy 1 | 12 .9, 6 .7, 25 .6: toothy grin, cheshire cat, all smiles, smile from ear to ear, face light up
happy 1 | 12 .9, 6 .7, 25 .6: grin like idiot
happy 1 | 12 .9, 6 .7, 25 .7: flash smile, radiant smile, dazzling smile, say cheese, crack smile widely
happy 1 | 12 .9, 6 .8, 25 .8, 26 .5: laugh, laughter, laughing, laughingly, guffaw, belly laugh, burst out laughing
happy 1 | 12 .9, 6 .8, 25 .8, 26 .5: cackle with joy, laugh out loud, howl laughing, hoot, in fits of laughter
happy 1 | 12 .9, 6 .8, 25 .8, 26 .5: fits of giggles
happy 0.7 | 12 .7, 6 .6, 25 .5: chuckle, giggle, titter, snicker happily, chortle, crack joke, crack smile
happy 0.5 | 12 .4: half smile, hint of smile, ghost of smile, shadow of smile, faint smile, mona lisa smile, small smile
happy 0.5 | 12 .4: mona lisa, smile shyly, smile politely, closed mouth smile, lips twitch with amusement
happy 0.4 | 12 .7: forced smile, fake smile, polite smile, customer service smile, strained smile, false smile
happy 0.4 | 12 .7: smile for camera
happy 0.4 | 12 .6: camera smile, passport smile
happy 0.8 | 6 .6: eyes light up, eyes lit up, crows feet, laughing eyes, smiling eyes, twinkle in eye, sparkle in eye
happy 0.8 | 6 .6: light in eyes, gleam in eye, glint in eye, crinkle around eyes, crinkles around eyes, smize
happy 0.8: sing, singing, whistle, whistling, hum tune, dance, dancing, clap, clapping, applaud, cheering, high five
happy 0.8: thumbs up, skip along, bounce, bouncing, glow, glowing, hug, hugging, kiss, twirl, wag tail, purr, wink
happy 0.8: fist pump, pump fist, punch air, victory dance, jump up and down, arms in air, throw arms around
surprised 0.7 | 27 .8, 26 .7, 25 .9: mouth wide open, mouth open wide, open mouth wide, wide open mouth, jaw wide open
sad 1 | 4 .6, 1 .5, 15 .8, 17 .5: cry, crying, weep, weeping, sob, sobbing, bawl, wail, wailing, whimper, whimpering
sad 1 | 4 .6, 1 .5, 15 .8, 17 .5: blub, break down, snivel, bawling, burst into sobs, howl with grief, keening
sad 0.9 | 1 .5, 15 .7, 17 .5: about to cry, close to tears, near tears, on verge of tears, on brink of tears
sad 0.9 | 1 .5, 15 .7, 17 .5: brink of tears
sad 0.9 | 1 .5, 15 .7, 17 .5: fight tears, fight back tears, hold back tears, holding back tears, fighting back tears
sad 0.9 | 1 .5, 15 .7, 17 .5: blink back tears
sad 0.9 | 1 .5, 15 .7, 17 .5: choke back tears, choke back sob, try not to cry, ready to cry, going to cry, gonna cry
sad 0.9 | 1 .5, 15 .7, 17 .5: want to cry
sad 0.9 | 1 .5, 15 .7, 17 .5: well up, eyes well up, tear up, tearing up, mist up, could cry, feel like cry
sad 0.9 | 1 .5, 15 .7, 17 .5: tears threaten
sad 0.9 | 1 .5, 15 .6: tear, tears, teary, tearful, tearfully, teary eyed, misty eyed, dewy eyed, red eyed, puffy eyed
sad 0.9 | 1 .5, 15 .6: wet eyes, watery eyes, red eyes, puffy eyes, swollen eyes, lachrymose, sniffle, sniff back tears
sad 0.9 | 17 .6, 25 .3: voice break, voice cracks, voice crack, voice breaking, choked voice, voice choke
sad 0.8 | 17 .8, 15 .6, 22 .4: pout, pouty, pouting, stick out lower lip, lower lip stick out, lower lip out, lip out
sad 0.8: hang head, head hang, head down, slump, slumped, slouch, droop, drooping, shoulders sag, sag, drag feet, sunken
sad 0.8: downcast eyes, lower gaze, gaze lowered, avert gaze sadly, stare at floor, stare at feet, heavy sigh, moan
sad 0.8: faraway look, far away look, sunken eyes, hollow eyes, empty eyes, bury face in hands, face in hands, bow head
angry 0.6 | 4 .8: frown, frowning, frowns, frowny, knitted brow
angry 0.9 | 4 .9, 7 .6: scowl, scowling, glower, glowering, glare, glaring, stare down, death stare, daggers
angry 0.9 | 4 .9, 7 .6: thunderous face, face like thunder, black look, face of thunder, stormy, stormy face
angry 0.9 | 4 .9, 7 .6: beetle browed
angry 0.9 | 4 .8, 7 .6, 24 .7: grimly set, set jaw, grit teeth, gritted teeth, gritting teeth, clenched teeth
angry 0.9 | 4 .8, 7 .6, 24 .7: clench teeth
angry 0.9 | 4 .8, 7 .6, 24 .7: grind teeth, gnash teeth, grinding teeth, clench fists, clenched fists, shake fist
angry 0.9 | 4 .8, 7 .6, 24 .7: bite tongue in anger
angry 0.9 | 4 .8, 10 .6, 25 .7: snarl, snarling, growl, growling, bare teeth, bared teeth, baring teeth, bares teeth
angry 0.9 | 4 .8, 10 .6, 25 .7: show teeth, fangs
angry 0.9 | 4 .8, 25 .7, 26 .5: shout, shouting, yell, yelling, bellow, bellowing, roar, roaring, rant, ranting, bark
angry 0.9 | 4 .8, 25 .7, 26 .5: barking
angry 0.9: hiss, hissing, slam, slamming, stomp, stomping, stamp foot, stamp feet, storm off, storm out, kick, punch
angry 0.9: throw things, pound table, bang fist, bang table, bang door, punch wall, swear, swearing, curse, cursing
angry 0.9: cuss
angry 0.9: quarrel, quarrelling, fight, fighting, attack, yell at, scream at, shout at, vein throb, vein bulge
angry 0.9: smoulder, bristle
angry 0.9: vein in forehead, wag finger, point finger, snap at, cross arms, arms crossed, arms folded, red face
angry 0.9: red faced, face red
angry 0.9: flare up, blaze, eyes blaze, eyes flash, eyes burn, flashing eyes, blazing eyes, spit words
angry 0.9: through clenched teeth
fear 0.9 | 1 .6, 4 .5, 20 .7: tremble, trembling, shiver, shivering, shudder, shaking, quake, quaking, shake with
fear 0.9 | 1 .6, 4 .5, 20 .7: teeth chatter
fear 0.9 | 1 .6, 4 .5, 20 .7: recoil, recoiling, flinch, flinching, shrink back, back away, backing away, run away
fear 0.9 | 1 .6, 4 .5, 20 .7: hide under bed
fear 0.9 | 1 .6, 4 .5, 20 .7: hide behind sofa, look over shoulder, wince, wincing, cower in corner, curl up in ball
fear 0.9 | 1 .6, 4 .5, 20 .7: grimace of fear
fear 0.9 | 1 .8, 5 .8, 20 .7, 25 .8, 26 .5: scream, screaming, shriek, shrieking, screech
fear 0.7: stammer, stammering, stutter, stuttering, swallow hard, swallow nervously, hyperventilate, sweat, sweating
fear 0.7: pale, pallid, ashen, go pale, turn pale, voice tremble, voice shake, shaky voice, trembling voice, shaky
fear 0.7: quavering
fear 0.7: freeze, frozen, hold breath, breath hitch, cling, clinging, dart eyes, eyes dart, darting eyes, bated breath
fear 0.5 | 32 .8: lip bite, bite lip, biting lip, lip biting, chew lip, nibble lip
surprised 0.9 | 1 .7, 2 .7, 5 .7, 25 .7, 26 .6: gasp, gasping, gape, gaping, gawk, gawp, goggle, slack jawed
surprised 0.9 | 1 .7, 2 .7, 5 .7, 25 .7, 26 .6: open mouthed
surprised 0.9 | 1 .7, 2 .7, 5 .7, 25 .7, 26 .6: agape, jaw drop open, catch flies, catching flies, mouth hanging open
surprised 0.9 | 1 .7, 2 .7, 5 .7, 25 .7, 26 .6: hand over mouth
surprised 0.9 | 1 .7, 2 .7, 5 .7: hands over mouth, jump back, spit take, do double take, blink in disbelief
surprised 0.9 | 1 .7, 2 .7, 5 .7: rub eyes in disbelief
surprised 0.9 | 5 .9: wide eyed, wideeyed, goggle eyed, bug eyed, saucer eyed, round eyed, doe eyed
surprised 0.9 | 5 .9: eyes like dinner plates, eyes big as saucers, pop eyed
surprised 0.4: stare, staring, blink, blinking, gaze in wonder, tilt head, head tilt, cock head
disgusted 0.9 | 9 .9, 10 .5: wrinkle nose, scrunch nose, nose wrinkle, hold nose, holding nose, pinch nose
disgusted 0.9 | 9 .9, 10 .5: crinkled nose
disgusted 0.9 | 9 .9, 10 .8: make face, pull face, grimace, grimacing, screw up face, screwed up face, scrunch face
disgusted 0.9 | 9 .9, 10 .8: scrunched face
disgusted 0.9 | 10 .7, 19 .6: stick tongue out in disgust, spit out, spit out food, spits out, spitting out
contempt 0.9 | 9 .5, 10 .8: sneer, sneering, curl lip, lip curl, curled lip, curling lip
contempt 1 | R12 .8, R14 .8: smirk, smirking, smirky, lopsided smile, crooked smile, one sided smile, smile on one side
contempt 1 | R12 .8, R14 .8: half smirk, sly smile, lopsided grin, crooked grin, wry smile, one corner of mouth
contempt 1 | R12 .8, R14 .8: corner of mouth rise
contempt 1 | R14 .8: dimple on one side, mouth corner tightened on one side
contempt 0.8: roll eyes, rolls eyes, rolling eyes, eye roll, eyeroll, snort, snorting, shake head, tut, tutting
contempt 0.8: scoffing laugh
contempt 0.8: snicker, snigger, cackle, look away, turn away, slow clap, chin up, chin held high, chin in air
contempt 0.8: wave off, raise chin, lift chin, peer over glasses, look up and down, yawn in face
neutral 0: wait, yawn
| 7 .7: squint, squinting, squinty, squints, half closed eyes, slit eyes, narrow eyed, peer
| 19 .8: tongue out, stick out tongue, stick tongue out, show tongue, poke tongue out, poke out tongue
| 18 .8: duck face, kissy face, kissing face, pucker up, blow kiss, pucker, air kiss, kissy lips
| 26 .9, 27 .5, 25 .8: open wide, yawning
| 14 .7: dimple, dimples
| 13 .7: puffed cheeks, puff cheeks, blow out cheeks
| 1 .8, 2 .8: raise eyebrow flash, eyebrow flash, brow flash
"""

PARTS = """
brow: eyebrow, brow, forehead, eye brow
inner brow: inner brow, inner eyebrow, inner corner of brow, inner corner of eyebrow, inner end of brow
inner brow: brow inner corner
outer brow: outer brow, outer eyebrow, outer corner of brow, outer end of brow, outer corner of eyebrow
eyes: eye, eyelid, lid, eyes
upper lid: upper lid, upper eyelid
lower lid: lower lid, lower eyelid
nose: nose, bridge of nose
nostrils: nostril
cheek: cheek
fold: nasolabial fold, nasolabial furrow, laugh line, smile line, nasolabial, fold beside nose
lips: lip, lips
upper lip: upper lip, top lip
lower lip: lower lip, bottom lip
corners: corner of mouth, corner of lip, mouth corner, lip corner, corners of mouth, corners of lips
mouth: mouth, gob
jaw: jaw
chin: chin
teeth: teeth, tooth
tongue: tongue
"""

ACTIONS = """
up: raise, lift, arch, up, high, hike, rise, elevate, shoot, jump, cock, quirk, upward, upwards, upturned, uplifted
up: hoist, climb
down: lower, drop, down, droop, fall, sink, downturned, downward, downwards, downcast, sag, depress, sloping, drag
together: furrow, knit, wrinkle, crease, gather, contract, pinch, bunch, scrunch, crinkle, together, frown, pucker
together: scrunched
wide: wide, widen, big, huge, bulge, stretch, goggle, pop, round, enlarged, bulging, saucer, large, popping
narrow: narrow, squint, tight, tighten, slit, screw, thin, tense, half-closed, stiff, compress, constrict, close
open: open, agape, hang, gape, slack, part, ajar, unhinged
press: press, compress, purse, seal, thin, squeeze, pinch, together, pinched, zipped, zip, clamp
tremble: tremble, quiver, wobble, shake, twitch, quake, trembling, quivering
clench: clench, set, lock, grit, tight, tense, clamp, stiff, grind
bite: bite, chew, nibble, gnaw, catch
curl: curl, sneer
out: out, stick, jut, protrude, show, poke, push, forward, thrust, loll
flare: flare, dilate, widen, wide
pucker: pucker, kiss
funnel: funnel
stretch: stretch, wide, sideways, taut
water: water, watery, wet, tear, glisten, red, brim, well, moist, fill, swim, puffy, swollen
shine: shine, sparkle, twinkle, bright, light, glow, gleam, dance, smile, lit
cold: cold, hard, harden, darken, steely, icy, blaze, flash, fiery, burn
roll: roll
bare: bare, show, flash
chatter: chatter
puff: puff, inflate
dimple: dimple
deep: deep, deepen, crease, pronounced, mark
"""

MOVES = """
brow up: surprised 0.6 | 1 .8, 2 .8
brow down: angry 0.5 | 4 .8
brow together: angry 0.5 | 4 .8
brow narrow: angry 0.5 | 4 .8
inner brow up: sad 0.5 | 1 .8
outer brow up: surprised 0.4 | 2 .8
eyes wide: surprised 0.6 | 5 .8
eyes open: surprised 0.4 | 5 .6
eyes up: | 5 .5
eyes narrow: angry 0.4 | 7 .8
eyes down: sad 0.4
eyes together: angry 0.3 | 7 .7
eyes water: sad 0.8 | 1 .5, 15 .5
eyes shine: happy 0.7 | 6 .5
eyes cold: angry 0.5 | 4 .5, 7 .6
eyes roll: contempt 0.8
upper lid up: surprised 0.5 | 5 .8
upper lid wide: surprised 0.5 | 5 .8
lower lid narrow: angry 0.3 | 7 .8
lower lid up: | 7 .7
nose together: disgusted 0.7 | 9 .9
nose up: contempt 0.6
nostrils flare: angry 0.5 | 38 .9
nostrils narrow: | 39 .8
nostrils press: | 39 .8
cheek up: happy 0.4 | 6 .8
cheek puff: | 13 .7
cheek dimple: | 14 .8
cheek water: sad 0.8
fold deep: | 11 .8
lips press: angry 0.4 | 24 .8
lips narrow: angry 0.4 | 23 .8
lips clench: angry 0.4 | 24 .8
lips pucker: | 18 .8
lips funnel: | 22 .8
lips open: surprised 0.2 | 25 .8
lips tremble: sad 0.8 | 17 .5, 15 .4, 25 .3
lips bite: fear 0.5 | 32 .8
lips curl: contempt 0.6 | 10 .8
lips stretch: fear 0.4 | 20 .8
lips out: sad 0.4 | 17 .7, 18 .4
lips up: | 12 .6
lips down: sad 0.5 | 15 .7
upper lip up: disgusted 0.5 | 10 .8
upper lip curl: contempt 0.6 | 10 .8
upper lip tremble: sad 0.7 | 17 .4
upper lip clench: neutral 1
upper lip bite: fear 0.4 | 32 .7
lower lip down: | 16 .8
lower lip out: sad 0.7 | 17 .8, 15 .5
lower lip tremble: sad 0.8 | 17 .6, 15 .4, 25 .3
lower lip bite: fear 0.5 | 32 .8
corners up: happy 0.7 | 12 .8
corners down: sad 0.7 | 15 .8
corners tremble: happy 0.3 | 12 .3
corners narrow: contempt 0.4 | 14 .8
corners dimple: contempt 0.3 | 14 .8
mouth open: surprised 0.6 | 25 .8, 26 .7
mouth wide: surprised 0.7 | 25 .9, 26 .7, 27 .7
mouth up: happy 0.6 | 12 .7
mouth down: sad 0.6 | 15 .7
mouth press: angry 0.3 | 24 .8
mouth narrow: angry 0.3 | 23 .7
mouth tremble: sad 0.7 | 17 .5, 25 .3
mouth pucker: | 18 .7
mouth stretch: surprised 0.3 | 27 .8, 25 .8
mouth clench: angry 0.4 | 24 .7
jaw down: surprised 0.7 | 26 .9, 25 .8
jaw open: surprised 0.7 | 26 .8, 25 .8
jaw clench: angry 0.6 | 24 .7, 23 .5
jaw narrow: angry 0.5 | 24 .6, 23 .5
jaw tremble: fear 0.5 | 17 .4
jaw out: angry 0.4 | 17 .5
chin up: contempt 0.3 | 17 .7
chin together: sad 0.4 | 17 .8
chin tremble: sad 0.8 | 17 .7
chin out: angry 0.3 | 17 .6
chin down: sad 0.3
teeth clench: angry 0.8 | 24 .5, 23 .6
teeth bare: angry 0.6 | 10 .7, 25 .8
teeth chatter: fear 0.6 | 20 .4
tongue out: | 19 .8
"""
