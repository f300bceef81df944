"""Words and idioms that name a feeling outright. The lexicon is ours; ``words`` reads it and says how it is written.

Weights are the natural intensity of a word: 1 for the plain name of an emotion, less for its mild, more for its violent
relatives.
"""

from __future__ import annotations

FEELINGS = """
neutral 1: neutral, neutrality, neutrally, deadpan, dead pan, poker face, poker faced, stone faced, stony faced, stoic
neutral 1: expressionless, emotionless, unemotional, impassive, blank, blank stare, inexpressive, unmoved, apathy
neutral 1: apathetic, detached, impersonal, affectless, robotic, wooden, straight face, straight faced, matter of fact
neutral 1: unaffected, indifference, indifferent, unreadable, inscrutable, passive, nonchalant, unfazed, dispassionate
neutral 1: bored, boredom, boring, =numb, numbness, monotone, monotonous, flat voice, flat tone, no emotion
neutral 1: without emotion, no expression, without expression, no feeling, without feeling, like statue, like robot
neutral 1: like news reader, like newsreader, news anchor, like mannequin, like wax figure, business as usual
neutral 1: at rest, resting face, nothing special, in two minds about nothing, vacant, vacantly, listless, disinterested
neutral 1: mask like, meh, whatever, could not care less, not give damn, not care, do not care, face of stone
neutral 0: calm, calmly, calmness, relax, relaxed, composed, composure, normal, normally, ordinary, usual, everyday
neutral 0: even tempered, level headed, collected, cool and collected, sober, plain, casual, casually, unexcited, placid
neutral 0: patient, patiently, quiet, quietly, silent, silently, still face, formal, formally, professional, okay, ok
neutral 0: so so
neutral 0: balanced, poised, sleepy, drowsy, attentive, attentively, focused, concentrate, concentrated, businesslike
neutral 0: good looking, nice looking, good quality, high quality, great quality, good lighting, good light
neutral 0: good morning, good evening
neutral 0: good night, good afternoon, great britain, great detail, in kind, of kind, poor quality, bad quality
neutral 0: low quality
neutral 0: unhurried, steady, fine, alright, all right, polite, politely, reserved, laid back, chill, mellow
neutral 0: chilled out

happy 1: happy, happiness, joy, joyful, joyous, glad, gladness, gladly, delight, delightful, cheer, cheery, cheerful
happy 1: happily, merry, merriment, merrily, jolly, jovial, gleeful, glee, sunny, radiant, bubbly, upbeat, high spirits
happy 1: gaiety, festive, in good mood, in great mood, in good spirits, good humour, good humor, sparkling, lighthearted
happy 1: light hearted, lightheartedness, enjoy, enjoyment, pleasure, excite, excitement, enthusiasm, enthusiastic
happy 1: enthuse, triumph, triumphant, victorious, celebrate, celebration, celebratory, exuberant, vivacious, mirth
happy 1: mirthful, blithe, chirpy, perky, bouncy, peppy, tickled, tickled pink, chuffed, made up about it, happy bunny
happy 1: happy camper, chipper, full of beans, in high feather, walking on sunshine, beaming with pride, proud as punch
happy 1: love, adore, in love, head over heels, smitten, besotted, infatuated, enchanted, enchant, enraptured
happy 1: feel great
happy 1: stoked, psyched, pumped, hyped, jazzed, buzzing, living best life, on top form, heart full, heart sings
happy 1: heart leap, heart soar, happy dance, =amazing, wonderful, fantastic, marvellous, marvelous, brilliant, fabulous
happy 1: yay, hooray, hurrah, hurray, woohoo, woo hoo, yippee, whoopee, woot, yess, yesss, hallelujah, happy as clam
happy 1: happy as larry, happy as lark, pleased as punch, happy as sandboy, happy as pig in mud, like dog with two tails
happy 1: like cat that got cream, like kid in candy store, like kid in candy shop, like kid in sweet shop, can not wait
happy 1: like child on christmas, like kid on christmas, heart on fire, over excited, lucky, blessed, elevated mood
happy 1: hilarious, hilarity, hysterically funny, funny, in stitches, crack up, cracks up, cracking up, good vibes
happy 1: vibing
happy 1: having blast, have blast, having ball, have ball, time of life, high on life, full of life, lively, spirited
happy 1: adoration, exhilarating, elation, feel good, warm and fuzzy, loved up, giggly, giddy, thrill, thrilling, festal
happy 1.3: ecstatic, ecstasy, ecstatically, euphoric, euphoria, elated, elate, overjoyed, jubilant, jubilation, exultant
happy 1.3: exult, exultation, rapturous, rapture, blissful, bliss, thrilled, exhilarated, over moon, on cloud nine
happy 1.3: on cloud 9, in seventh heaven, on top of world, walking on air, floating on air, happiest, delirious
happy 1.3: deliriously happy, jump for joy, leap for joy, dance for joy, dancing with joy, burst with joy, weep for joy
happy 1.3: cry with joy, cry of joy, tears of joy, tear of joy, happy tears, cry happy tears, cry with laughter
happy 1.3: cry laughing
happy 1.3: tears of happiness, tears of laughter, laugh until cry, laugh till cry, die of laughter, roar with laughter
happy 1.3: howl with laughter, can not stop laugh, can not contain joy, can not contain excitement, best day of life
happy 1.3: happiest day, happiest moment, dream come true, in heaven, beside self with joy, mad with joy, wild with joy
happy 1.3: crazy with joy, out of mind with joy, rolling on floor laughing, rofl, lmao, paradise, stark raving happy
happy 0.7: pleased, please with, pleasant, pleasantly, pleasing, proud, pride, proudly, playful, playfully, mischievous
happy 0.7: cheeky, impish, teasing, amuse, amused, amusing, amusement, relief, relieved, relieve, grateful, gratitude
happy 0.7: thankful, appreciative, flattered, charmed, friendly, warm, warmly, warmth, welcoming, affection
happy 0.7: affectionate
happy 0.7: tender, tenderly, tenderness, loving, lovingly, fond, fondly, fondness, kind hearted, optimistic, optimism
happy 0.7: hopeful, hope, hopefully, confident, confidence, self assured, encouraged, inspired, eager, eagerly
happy 0.7: eagerness
happy 0.7: good mood, funny mood, jokey, joke, joking, humorous, humour, humor, witty, flirt, flirty, flirtatious, coy
happy 0.7: carefree, breezy, untroubled, smiley, dimpled, feel lucky, lovestruck, great, awesome, sweet, sweetly, nice
happy 0.7: lovely, good natured, positive, vibrant, energetic, animated, sympathetic joy, lol, haha, hahaha, hehe
happy 0.7: heehee
happy 0.7: anticipate, anticipation, looking forward, look forward, keen, not bad, things look up, chirp, genial
happy 0.7: cordial
happy 0.7: weight off shoulders, off hook, load off mind, phew, thank god, thank goodness, thank heavens, glad hearted
happy 0.5: content, contented, contentment, contentedly, satisfied, satisfaction, satisfy, satisfying, serene, serenity
happy 0.5: peaceful, peacefully, at peace, tranquil, blithely, comfortable, cosy, cozy, at ease, fulfilled, gratified
happy 0.5: agreeable, amiable, gentle, gently smiling, reassured, reassuring, consoled, comforted, soothed
happy 0.5: quietly pleased
happy 0.5: benevolent, kindly, approving, approval, trusting, =good, well disposed, easygoing, dreamy, dreamily
happy 0.5: mild joy
happy 0.5 sad 0.5: bittersweet, bitter sweet, wistful, wistfully, wistfulness, nostalgic, nostalgia
happy 0.5 sad 0.5: laugh and cry
happy 0.5 sad 0.5: mixed feelings, mixed emotions, poignant, sweet sorrow, smile through tears, smiling through tears
happy 0.5 sad 0.5: laugh through tears, melancholy smile, touched, moved to tears, emotional, sentimental, tear jerking
happy 0.5 fear 0.4: nervous laugh, nervous laughter, laugh nervously, giggle nervously, nervous giggle
happy 0.5 fear 0.4: nervously excited
happy 0.5 fear 0.4: nervous excitement, butterflies of joy, nervous smile, smile nervously, bashful, coyly nervous
happy 0.6 contempt 0.6: gloat, gloating, gloats, schadenfreude, malicious glee, evil laugh, evil grin, malicious joy

sad 1: sad, sadness, sadden, saddened, saddening, sadly, unhappy, unhappiness, sorrow, sorrowful, sorry, dejected
sad 1: dejection, downcast, downhearted, crestfallen, mournful, mourning, mourn, depressed, depression, depressing
sad 1: depress, gloomy, gloom, glum, miserable, misery, melancholy, melancholic, woeful, woe, woebegone, doleful
sad 1: dolorous, forlorn, despondent, dispirited, disheartened, =blue, feel blue, has blues, got blues, in tears
sad 1: burst into tears
sad 1: weepy, lament, lamenting, grieving, teary mood, hurt, hurting, wounded, pained, rejected, abandoned, lonely
sad 1: loneliness, lonesome, alone in world, homesick, heartache, heartsick, heavy heart, heavy hearted, lump in throat
sad 1: down in dumps, in dumps, down in mouth, in doldrums, under weather emotionally, feel down, so down, very down
sad 1: feel low, so low, low spirits, in low spirits, in bad place, joyless, cheerless, pessimistic, pessimism, hopeless
sad 1: hopelessness, helpless, helplessness, defeated, defeat, tragic, tragedy, tragically, pitiful, pathetic sob
sad 1: remorse, remorseful, regret, regretful, ruefulness, rueful, ashamed, shame, shamefaced, guilt, guilty, guiltily
sad 1: boo hoo, boohoo, sob story, alas, hangdog, like wet weekend, wet weekend, like kicked puppy, kicked puppy
sad 1: sad puppy, puppy eyes, puppy dog eyes, like lost puppy, like rain cloud, black dog, long face, face like wet week
sad 1: sick at heart, cut up, gutted, choked up, broken up, torn up, tear jerker, in pieces, out of sorts, in mourning
sad 1: grey mood, gray mood, sombre, somber, sombreness, bleak, funereal, let down, failure, grave voice, sulk
sad 1: miss terribly, self pity, pity party, left out, unloved, unwanted, worthless, empty inside, dead inside, hollow
sad 1.3: heartbroken, heartbreak, heart broken, heartbreaking, broken hearted, brokenhearted, broken heart, devastated
sad 1.3: devastate, devastation, devastating, grief, griefstricken, grief stricken, despair, desperate, desperation
sad 1.3: desolate, desolation, inconsolable, inconsolably, anguish, anguished, agony, agonised, agonized, tormented
sad 1.3: suicidal, shattered, crushed, bereft, wretched, wretchedness, heart rending, distraught, bawl eyes out
sad 1.3: cry eyes out, cries eyes out, cry heart out, sob heart out, sob uncontrollably, cry uncontrollably, weep openly
sad 1.3: cry river, floods of tears, flood of tears, end of world, world fall apart, heart break, heart ache, breakdown
sad 1.3: beside self with grief, sick with grief, break down in tears, break down crying, at rock bottom, rock bottom
sad 0.7: disappointed, disappoint, disappointment, disappointing, bummed, bummer, bummed out, discouraged, despondence
sad 0.7: sympathetic, sympathy, compassion, compassionate, pity, pitying, empathy, longing, yearning, yearn, pine for
sad 0.7: sulky, sulking, mope, moping, mopey, moody, subdued, resigned, resignation, apologetic, apologetically
sad 0.7: plaintive
sad 0.7: plaintively, pleading, imploring, downbeat, cheesed off with life, weary of life, sigh, careworn
sad 0.7: lost and alone
sad 0.7: not okay, not ok, not good, not well, not fine, feel bad, feel awful, feel terrible, bad mood today, upsetting
sad 0.7: disillusion, disillusioned, disenchanted, deflated, crummy, lousy, under cloud, bad news, blubber, oh dear
sad 0.7: afflicted, suffer, suffering, =down, =low, torment, neglected, forgotten, vulnerable, fragile, =broken
sad 0.3: tired, tiredness, weary, wearily, exhausted, exhaustion, pensive, pensively, thoughtful, solemn, solemnly
sad 0.3: earnest, drained, fatigued, worn out, wistless, contemplative, brooding, preoccupied, absent minded, lacklustre
sad 0.6 angry 0.4: upset, frustration and tears, bitter tears, resentful tears, aggrieved, hurt pride, =bitter
sad 0.6 angry 0.4: bitterness
sad 0.5 fear 0.4: distressed, distress, troubled, overwhelmed, embarrassed, embarrass, embarrassment, embarrassing
sad 0.5 fear 0.4: humiliated, humiliation, humiliate, mortified, mortification, awkward, awkwardness, sheepish, insecure
sad 0.5 fear 0.4: insecurity, lost, at wits end, despairing fear, cringe, cringing, red faced with shame, self conscious

angry 1: angry, anger, angrily, mad, madly angry, wrath, wrathful, irate, cross with, =cross, crossly, incense, incensed
angry 1: infuriate, hostile, hostility, aggressive, aggression, aggressively, vengeful, vengeance, revenge, vindictive
angry 1: hate, hatred, hateful, resent, resentful, resentment, fuming, fume, up in arms, hot under collar, hot tempered
angry 1: blood boil, boil blood, lose temper, lost temper, short tempered, bad tempered, ill tempered, temper tantrum
angry 1: tantrum, pissed, pissed off, ticked off, teed off, hacked off, cheesed off, browned off, hopping mad
angry 1: steamed up
angry 1: got goat, in huff, at boiling point, bent out of shape, worked up, het up, seeing red, see red, on warpath
angry 1: up wall, drive up wall, drive crazy, last straw, fed up, fed up to back teeth, sick of this, sick and tired
angry 1: sick of it, had enough, had it up to here, enough is enough, bite head off, jump down throat, fly off handle
angry 1: blow top, blow fuse, blow gasket, hit roof, hit ceiling, go ballistic, go berserk, go ape, lose it, lost it
angry 1: flip lid, flip out, throw fit, throw wobbly, spit feathers, steam come out of ears, steam out of ears
angry 1: outrage, outraged, outrageous, indignant, indignation, indignantly, righteous anger, menace, menacing
angry 1: menacingly
angry 1: threaten, threatening, threateningly, fierce, fiercely, ferocity, warlike, violent, violently, brutal, spiteful
angry 1: spite, venom, venomous, venomously, malice, bloody minded, how dare you, how dare, damn it, dammit, damn you
angry 1: goddamn, ffs, wtf are you doing, get out of here, shut up, argh, aargh, grr, grrr, grrrr, bastard, son of bitch
angry 1: mad as hornet, mad as hell, mad as wet hen, mad as bull, like angry bull, like bull seeing red
angry 1: like raging bull
angry 1: like bear with sore head, bear with sore head, like wounded tiger, like wasp, provoke, provoked, antagonise
angry 1: antagonize, antagonistic, defiant, defiance, defiantly, quarrelsome, combative, belligerent, bellicose
angry 1: bitter rage
angry 1: riled, riled up, rile, enrage by, affront, affronted, offended, offend, insulted, wronged, betrayed, betrayal
angry 1: not fair, unfair, injustice, complain bitterly, gives what for, dirty look, looks daggers, look daggers
angry 1: if looks could kill
angry 1: killer look, evil eye, ready to explode, about to explode, murder in eyes, out for blood, beef with, bad blood
angry 1.3: furious, fury, furiously, rage, raging, enrage, enraged, livid, seething, seethe, infuriated, apoplectic
angry 1.3: incandescent, outraged beyond, murderous, ballistic, berserk, foam at mouth, foaming, frothing, blind rage
angry 1.3: white with rage, red with rage, purple with rage, shake with rage, tremble with rage, explode with anger
angry 1.3: boil with rage, burning with anger, volcanic, rabid, hulk out, like volcano, beside self with rage
angry 1.3: scream bloody murder
angry 0.6: annoy, annoyed, annoyance, annoying, irritate, irritated, irritation, irritable, irk, irked, irksome, vexed
angry 0.6: vex
angry 0.6: vexation, displeased, displeasure, displease, miffed, peeved, peevish, pique, piqued, grumpy, grump, grumpily
angry 0.6: grouchy, grouch, grumble, grumbling, crabby, cranky, testy, snappy, snippy, tetchy, narky, stroppy, ratty
angry 0.6: shirty, surly, sullen, sullenly, disgruntled, dissatisfied, discontent, discontented, exasperated, exasperate
angry 0.6: exasperation, frustrate, frustrated, frustration, frustrating, impatient, impatiently, impatience, aggravate
angry 0.6: aggravated, bothered, bother, nettled, rattled and cross, rankled, ruffled, stern, sternly, severe, severely
angry 0.6: harsh, harshly, gruff, gruffly, strict, reproach, reproachful, reproachfully, accuse, accusing, accusingly
angry 0.6: disapprove, disapproval, disapproving, scold, scolding, tell off, critical, criticise, criticize, not amused
angry 0.6: unamused, sour, sour faced, got out of bed on wrong side, wrong side of bed, bad mood, in foul mood
angry 0.6: foul mood
angry 0.6: rub up wrong way, get on nerves, on nerves, pet peeve, teach lesson, not again, give me break, for god sake
angry 0.6: for goodness sake, for heaven sake, bah, tsk, hmph, humph, salty, butthurt, ragequit, triggered, sore loser
angry 0.6: jealous, jealousy, jealously, envy, envious, enviously, hangry, argumentative, argue, bicker, protest
angry 0.6: protesting
angry 0.6: rude, curt, brusque, impolite, intense, intensely staring, stubborn, obstinate, cantankerous, curmudgeon
angry 0.35: serious, seriously, determined, determination, resolute, grim, grimly, unyielding, firm stare, tense
angry 0.35: tension
angry 0.35: strained, stressed, stress, stressful, agitated, agitation, restless, bossy, commanding, assertive
angry 0.35: authoritative
angry 0.35: steely, gritty, dogged, tough, hard faced, cold stare, cold blooded, stony

fear 1: fear, fearful, fearfully, afraid, scared, scare, scaredy, scary, scarily, frighten, frightened, frightening
fear 1: frightful, fright, dread, dreading, dreadful feeling, spooked, spook, spooky, creeped out, creep out, creepy
fear 1: eerie
fear 1: alarm, alarmed, alarming, panic, panicky, panicked, panicking, phobia, phobic, trepidation, timid, timidly
fear 1: cowardly, coward, cower, cowering, intimidated, intimidate, threatened by, haunted, haunting, paranoid, paranoia
fear 1: in danger, endangered, unsafe, hunted, cornered, trapped, cold feet, chicken out, have butterflies in stomach
fear 1: butterflies in stomach, butterflies in tummy, heart in mouth, heart in throat, heart sink with fear
fear 1: jump out of skin
fear 1: hair stand on end, hair on end, blood run cold, run blood cold, shiver down spine, chill down spine, chills
fear 1: goosebumps, goose bumps, knees knock, knees shake, weak at knees with fear, shake in boots, quake in boots
fear 1: shake like leaf, tremble like leaf, shaking like leaf, deer in headlights, rabbit in headlights
fear 1: like cornered animal
fear 1: like hunted animal, white as sheet, pale as ghost, white as ghost, look like ghost, break into cold sweat
fear 1: cold sweat
fear 1: on edge, edge of seat, bundle of nerves, bag of nerves, nervous wreck, basket case, heebie jeebies, willies
fear 1: jitters
fear 1: jittery, freak out, freaked, freaking out, freaks out, lose nerve, wet pants, wet self, heart racing
fear 1: heart pound
fear 1: heart race, help me, oh no, yikes, eek, aah, gulp, run for life, flee, fleeing, flee in, escape danger, mayday
fear 1: save me
fear 1: afraid of own shadow, scared of own shadow, like mouse before cat, frozen to spot, rooted to spot
fear 1: freeze with fear
fear 1: startled fear, stage fright, nightmare, nightmarish, ominous, foreboding, premonition, hysteria, hysterical
fear 1: hysterically, anxiety, angst, anguished fear, spine chilling, bloodcurdling, blood curdling, hair raising
fear 1: caught in act, awe and fear, cry for help, scream for help, call for help, begging for mercy, beg for mercy
fear 1: doom
fear 1.3: terrified, terrify, terrifying, terror, terrorised, terrorized, petrified, petrify, horrified by danger
fear 1.3: panic stricken, panicstricken, scared stiff, scared silly, scared to death, frightened to death
fear 1.3: frighten to death
fear 1.3: scared witless, scared shitless, scared out of wits, scared out of mind, frightened out of wits, out of wits
fear 1.3: mortal fear, fear for life, fears for life, afraid for life, panic attack, scream in terror, mortal terror
fear 1.3: frozen in fear
fear 1.3: frozen with fear, paralysed with fear, paralyzed with fear, paralysed by fear, paralyzed by fear
fear 1.3: terror stricken
fear 1.3: bricking it, shit scared, crap pants, shit pants, shitting bricks, sheer terror, scared half to death
fear 0.7: anxious, anxiously, worry, worried, worrying, worrisome, nervous, nervously, nervousness, nervy, uneasy
fear 0.7: unease, uneasily, uneasiness, apprehensive, apprehension, edgy, jumpy, skittish, concerned, concern, unsettled
fear 0.7: unsettling, unnerved, unnerving, disconcerted, disconcerting, disturb, disturbed, disturbing, wary, warily
fear 0.7: wariness, cautious, cautiously, hesitant, hesitantly, hesitation, shy, shyly, shyness, tremulous, stressed out
fear 0.7: rattled, fret, fretful, fretting, insecure voice, timorous, flustered, perturbed, queasy with nerves
fear 0.7: uncertain
fear 0.7: uncertainty, unsure, doubtful, diffident, daunted, daunting, biting nails, bite nails, chew nails, nail biting
fear 0.7: on tenterhooks, on pins and needles, in suspense, suspense, keep fingers crossed, fingers crossed
fear 0.7: sweat bullets
fear 0.7: defensive, meek, meekly, submissive, tense and afraid, fidget, fidgety, hunch, guarded, uncomfortable

disgusted 1: disgust, disgusted, disgusting, disgustedly, revolt by, revolted, revolting, revulsion, repulse, repulsed
disgusted 1: repulsion, repulsive, repugnant, repugnance, repelled, repel, nausea, nauseous, nauseated, nauseate
disgusted 1: nauseating, sickened, sickening, sicken, loathe, loathing, loathsome, abhor, abhorrent, abhorrence, detest
disgusted 1: detestable, grossed out, gross out, gross, grossness, yuck, yucky, yuk, ick, icky, eww, ew, ewww, eew, ugh
disgusted 1: blech, bleh, bleugh, barf, puke, puking, vomit, vomiting, throw up, throwing up, about to be sick, be sick
disgusted 1: retch, retching, gag, gagging, feel sick, felt sick, feels sick, feeling sick, sick to stomach, make sick
disgusted 1: makes sick, stomach turn, turn stomach, stomach churn, churn stomach, skin crawl, make skin crawl, queasy
disgusted 1: queasiness, green around gills, green in face, vile, foul, foul smell, stench, stink, stinky, reek, putrid
disgusted 1: rancid, rotten, filthy, filth, nasty, nastiness, unsavoury, unsavory, unpalatable, distasteful, noxious
disgusted 1: abominable, hideous, horrid, pew, phew what smell, bad taste in mouth, bad smell, bad taste
disgusted 1: like smelled something bad
disgusted 1: like sucked lemon, suck on lemon, bite lemon, bit into lemon, bites into lemon, ate something rotten
disgusted 1: eat something rotten
disgusted 1: not touch with barge pole, would not touch, put off food, put off lunch, lose lunch, lost appetite
disgusted 1: lose appetite, slimy, grotty
disgusted 1: minging, manky, skanky, grody, obscene, repellent, stomach churning, stomach turning
disgusted 1: like bad smell under nose
disgusted 0.6: distaste, dislike, aversion, averse, squeamish, turned off, turn off, off putting, offputting
disgusted 0.6: unappetising
disgusted 0.6: unappetizing, tasteless, =sick, unpleasant, unpleasantness, dirty, grimy, smelly, musty, mouldy, moldy
disgusted 0.6: bleach face
disgusted 0.8 angry 0.2: appal, appall, appalled, appalling, appals, appalls, despicable, abomination, atrocious
disgusted 0.5 fear 0.6: horrified, horror, horrify, horrifying, horrific, horrible, macabre, gruesome, ghastly, grisly
disgusted 0.5 fear 0.6: horrorstruck, horror struck, monstrous, gory, nightmare fuel
angry 0.4 sad 0.4: awful, terrible, dreadful

surprised 1: surprise, surprised, surprising, surprisingly, astonish, astonished, astonishing, astonishment, amaze
surprised 1: amazed
surprised 1: amazement, amazes, startle, startled, startling, shock, shocked, shocking, taken aback, take aback, stun
surprised 1: stunned
surprised 1: stunning news, stupefied, stupefaction, dumbfounded, dumbstruck, dumb struck, dumfounded, speechless
surprised 1: awestruck
surprised 1: awe struck, awed, awe, in awe, wonder, wonderment, wondrous, jolt, jolted, unexpected
surprised 1: unexpectedly, incredulous, incredulity, incredulously, disbelief, disbelieving, unbelievable, unbelieving
surprised 1: incredible, can not believe eyes, can not believe ears, can not believe it, can not believe this
surprised 1: can not believe
surprised 1: could not believe eyes, could not believe ears, could not believe, not believe eyes, not believe ears
surprised 1: double take
surprised 1: out of blue, out of nowhere, caught off guard, catch off guard, off guard, caught unawares, bolt from blue
surprised 1: bolt out of blue, eyes on stalks, eyes pop out of head, eyes popping out, eyes like saucers, jaw dropping
surprised 1: jaw on floor, jaw hits floor, jaw hit floor, knock for six, knock down with feather
surprised 1: knocked down with feather
surprised 1: knock socks off, blow socks off, blow away, blown away, mind blown, blow mind, mind blowing, floored
surprised 1: bowl over
surprised 1: bowled over, thunderstruck, lightning struck, struck by lightning, struck dumb, lost for words
surprised 1: lose for words
surprised 1: at loss for words, words fail, stop dead in tracks, stopped in tracks, revelation, eureka, epiphany, aha
surprised 1: wow, whoa, woah, omg, oh my god, oh my gosh, oh my goodness, oh my, my god, good heavens, good lord
surprised 1: good grief
surprised 1: no way, holy cow, holy moly, holy smokes, holy crap, holy shit, gosh, golly, crikey, blimey, jeez
surprised 1: gee whiz, wtf
surprised 1: what hell, what heck, you are kidding, you are kidding me, are you kidding, are you serious, really now
surprised 1: well i never
surprised 1: who knew, did not see that coming, not see coming, never saw coming, did not expect, not expect
surprised 1: pleasantly startled
surprised 1: plot twist, bombshell, sudden news, jumpscare, jump scare, agog, nonplussed, boggle, mind boggling, gaga at
surprised 1.3: flabbergasted, flabbergast, gobsmacked, astounded, astound, astounding, thunderstruck silence
surprised 1.3: shellshocked
surprised 1.3: shell shocked, staggered, shocked to core, stunned into silence, utter disbelief, total disbelief
surprised 0.6: baffled, baffle, bafflement, bewildered, bewilder, bewilderment, puzzled, puzzle, puzzlement, perplexed
surprised 0.6: perplex, perplexity, confused, confuse, confusion, confusing, mystified, mystify, curious, curiously
surprised 0.6: curiosity, intrigued, intriguing, fascinated, fascination, fascinating, quizzical, quizzically
surprised 0.6: questioning
surprised 0.6: inquisitive, eye opening, impressed, oh, huh, eh, hm what, is that so, really question, flummoxed
surprised 0.6: bemused
surprised 0.6: bemusement, gullible, question mark, question marks, spellbound, mesmerised, mesmerized, rapt, wondering
surprised 0.6: suspenseful
surprised 0.3: interested, interest, interesting, alert, alertness, watchful, attentive surprise, expectant, expectantly
surprised 0.6 happy 0.5: happily surprised, pleasant surprise, pleasantly surprised, sweet surprise, nice surprise
surprised 0.6 happy 0.5: delighted surprise, starstruck, star struck, wonderstruck, joyful surprise

contempt 1: contempt, contemptuous, contemptuously, contemptible, scorn, scornful, scornfully, disdain, disdainful
contempt 1: disdainfully, despise, despising, deride, derision, derisive, derisively, derisory, haughty, haughtily
contempt 1: haughtiness, arrogant, arrogance, arrogantly, condescending, condescend, condescension, condescendingly
contempt 1: patronising, patronizing, patronise, patronize, smug, smugly, smugness, self satisfied, superior
contempt 1: superiority
contempt 1: supercilious, snob, snobbish, snobby, snooty, snotty, stuck up, hoity toity, high and mighty
contempt 1: holier than thou
contempt 1: look down on, look down nose, look down upon, looks down, looking down on, nose in air, turn up nose
contempt 1: turn nose up
contempt 1: turned up nose, with nose in air, dismissive, dismissively, dismiss, belittle, belittling, mock, mocking
contempt 1: mockingly, mockery, ridicule, ridiculing, taunt, taunting, jeer, jeering, scoff, scoffing, sarcastic
contempt 1: sarcasm
contempt 1: sarcastically, sardonic, sardonically, cynical, cynic, cynically, cynicism, snide, snidely, condescends
contempt 1: disrespect, disrespectful, beneath me, beneath dignity, think better than, thinks better than
contempt 1: better than everyone
contempt 1: what idiot, what loser, what moron, idiot, moron, loser, pathetic, pathetically, laughable, ludicrous
contempt 1: yeah right
contempt 1: as if, who cares, talk to hand, big deal, pfft, pff, pshaw, puh lease, whoop de do, oh please, sure jan
contempt 1: lame
contempt 1: villainous, self righteous, conceited, conceit, vain, cocky, swagger, pompous, pompously, lofty
contempt 1: regal disdain
contempt 1: like dirt on shoe, treat like dirt, like piece of dirt, give cold shoulder, cold shoulder, not worth time
contempt 1: unworthy, worthless fool, look of superiority, know it all, throw shade, shady look, side eye, stink eye
contempt 1: bitchy
contempt 1: resting bitch face, bitch face, catty, sniffy, toffee nosed, full of self, high horse, on high horse
contempt 0.6: skeptical, sceptical, skepticism, scepticism, skeptically, sceptically, unimpressed, not impressed, wry
contempt 0.6: wryly
contempt 0.6: ironic, irony, ironically, aloof, aloofness, aloofly, doubting, suspicious, suspiciously, suspicion
contempt 0.6: distrust
contempt 0.6: distrustful, mistrust, mistrustful, snarky, snark, disparaging, disparage, unconvinced, jaded, blase
contempt 0.6: cool disdain
contempt 0.6: doubt, in doubt, not buy it, not believe word, oh really, sure you did, if you say so
contempt 0.6: cunning, sly, slyly, crafty, sinister, calculating, cold hearted, coldly, icily, icy, frosty
contempt 0.6: self important
happy 1: rejoice, revel, heavenly, zest, zestful, zeal, passionate, fervent, ardent, cherish, congratulations, congrats
happy 1: cheers
happy 1: buoyant, buoyancy, sprightly, frolic, silly, goofy, zany, wacky, jocular, whimsical, rollicking, heartwarming
happy 1: uplifting
happy 1: uplifted, heart melt, melt heart, warm heart, spring in step, wish come true, wish granted
happy 1: know no bounds of joy, victory
happy 1: champion, triumphal, bright eyed, bushy tailed, ray of sunshine, sunshine itself, in love with life, enamored
happy 1: enamoured
happy 0.6: romantic, kind, kindness, caring, motherly, fatherly, paternal, maternal, comforting, rescued, safe, at home
happy 0.6: refreshed
happy 0.6: rejuvenated, motivated, empowered, compliment, praise, welcome, adorable, cute, charming, seductive, sultry
happy 0.6: coquettish
happy 0.6: feisty fun, self confident, accomplished, well rested, saucy, naughty, glad to see, pampered, spoiled rotten
happy 0.6: zen
happy 0.4 fear 0.3: blush, blushing, bashfulness, demure, demurely, shy smile, smile shy, tongue tied
sad 1: dismal, dreary, forsaken, disconsolate, sinking feeling, heart sink, heart drop, heart in boots, ache, aching
sad 1: sad eyed
sad 1: tear stained, mourner, spiritless, in pain, pain, painful, agonizing, agonising, agonize, agonise, crest fallen
sad 1: pining
sad 1: lifeless, lost will, haggard, mascara run, life is over, world end, down and out, hit bottom, no hope
sad 1: without hope, unloveable
sad 1: dour, lugubrious, morose, saturnine, maudlin, downtrodden, moan and groan, sniffles, tears streaming, tears run
sad 1: tears roll
sad 1: tears stream, tears fall, tears flow, weltschmerz, grieve, missing you, wish you were here, tear slide
sad 1: tear roll, tear run
sad 0.5 fear 0.5: dismay, dismayed, at breaking point, nervous breakdown, on verge of breakdown, overwrought
sad 0.5 fear 0.5: helpless fear
angry 1: temper, ire, acrimony, acrimonious, animosity, bile, choler, dudgeon, huffy, hot headed, maddened, maddening
angry 1: vicious
angry 1: savage, savagely, fiery, explosive, outburst, blow up, blew up, lash out, go postal, fit of rage
angry 1: sick to death of, done with this, over this, cold fury, curdle milk, sour milk face, face like slapped arse
angry 1: merciless
angry 1: bad blood, blood vessel, burst blood vessel, steam, steaming, simmer, simmering, smouldering, smoldering
angry 1: tempestuous
angry 1: evil, wicked look, nasty look, hard look, hard stare, hard eyes, look that could kill, loggerheads
angry 1: bone to pick
angry 1: at throat, go mental, go nuts, go bananas, lose rag, do nut, throw toys out of pram, spoiling for fight
angry 1: raise voice
fear 1: caught red handed, caught in lie, caught in act, busted, hands up, at mercy of, knife at throat, out on limb
fear 1: aghast, qualm, quail, twitchy, peril, perilous, danger, dangerous, threat, menaced, helplessly, frantic
fear 1: frantically, frenzied
fear 1: overwrought with fear, worried sick, scaredy cat, antsy, emergency, wimp, sheer panic, on guard
fear 1: fight or flight, hunted look
fear 1: walk over grave, step on grave, someone at window, watching me, being watched, be watched, shadow move
fear 1: not alone in house
fear 0.7: shaken, shaken up, shook up, misgiving, worrywart, dire, on verge of panic, nerves, nerve racking
fear 0.7: suspenseful, tremor
fear 0.7: trust issue, spooky feeling, second thoughts, hesitate, get wind up, squirm, stomach in knots, knot in stomach
disgusted 1: eugh, yech, blegh, unclean, squick, squicked, odious, fetid, foetid, rank smell, tainted, contaminated
disgusted 1: infested
disgusted 1: gut wrenching, hurl, heave, upchuck, bile rise, sickly sweet, gone off, go off, gone bad, gone mouldy
disgusted 1: past sell by date
disgusted 1: cringey, stomach heave, reeking, malodorous, make skin creep, putrefied, spew, cannot stomach, unhygienic
disgusted 1: lurid
surprised 1: stupor, dazed, daze, thrown, thrown off, unprepared, discovery, electrified, rude awakening
surprised 1: out of left field
surprised 1: never expected, jeepers, great scott, heavens, dear me, goodness, goodness me, my word, my goodness
surprised 1: strewth, say what
surprised 1: come again what, excuse me what, what the, =shook, i am shook, wait what, hang on what, hold on what
surprised 1: how is that possible
surprised 1: unforeseen, unanticipated, sudden, suddenness, all at sea, mind bending, not what expected, bewitched
surprised 1: stupefy, astonied
surprised 0.6: realise, realize, realisation, realization, dawn on, it dawns, penny drop, light bulb moment
surprised 0.6: eyebrow raising
contempt 1: cavalier, flippant, insolent, insolence, impudent, impudence, withering, pretentious, elitist, hubris
contempt 1: hauteur, scathing
contempt 1: caustic, acerbic, derogatory, dismissal, imperious, spare me, too good for, as if care, look of scorn
contempt 1: poor taste
contempt 1: mocks, sneery, beneath notice, waste of space, nobody like you, you people, oh really sure, slow handclap
contempt 1: unworthy of
neutral 1: stolid, phlegmatic, unreactive, dull, bland, zoned out, spaced out, vacuous, mechanical, automatic
neutral 1: impartial, objective
neutral 1: objective tone, no reaction, without reaction, does not react, not react, dry tone, bored out of mind
neutral 1: bored stiff, bored to tears
neutral 1: bored to death, unenthusiastic, lethargic, lethargy, jadedness, ennui, plain face, mask of indifference
neutral 1: keep face straight
angry 0.5 contempt 0.6: =cruel, cruelly, cruelty, sadistic, sadist, heartless, ruthless, ruthlessly, remorseless
angry 0.5 contempt 0.6: gleeful cruelty
sad 1: face fall, smile die, smile fade, spirits sink, spirits fall, light go out of eyes, crumble, crumple
sad 1: face crumple
angry 1: spit dummy, throw toys, gnash, kick off, go off on one, bite your head off, ready to punch, want to punch
angry 1: want to kill
disgusted 1: swallow fly|bug|spider|worm|hair|insect, fly in, bug in, worm in, taste like soap, find bug|worm|hair|fly
disgusted 1: like vinegar
"""
