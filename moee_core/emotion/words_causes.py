"""Situations and what people usually show in them; they count only where nothing says what is felt or shown.

Alternatives are separated by "|": "lose job|house" stands for two phrases.
"""

from __future__ import annotations

CAUSES = """
happy 1: win, win lottery, win|hit jackpot, winner, win prize|medal|trophy|championship|cup|game|match|race|award|bet
happy 1: gold medal
happy 1: get promotion|raise, get promoted, promotion, promoted, pay raise|rise, bonus, get engaged, engagement
happy 1: get married, marry
happy 1: marriage, wedding, wedding day, honeymoon, bride, bridegroom, propose, say yes, he says yes, she says yes
happy 1: expecting baby
happy 1: baby born, birth of, newborn, first child, become father|mother|parent|grandmother|grandfather, birthday
happy 1: birthday cake
happy 1: birthday party, birthday present, party, christmas, christmas morning, christmas present
happy 1: open|unwrap present|gift
happy 1: receive|get gift|present|flowers|compliment|medal, graduate, graduation, pass exam|test, pass driving test
happy 1: get accepted|admitted, good news|grade|result, great news, holiday, vacation, go on holiday|vacation, day off
happy 1: weekend begins
happy 1: new puppy|kitten|car|house|bike, puppy, kitten, ice cream, chocolate, favourite|favorite food|song|team|meal
happy 1: score goal
happy 1: team score|win, sunshine, sunny day, spring morning, beach, reunion, reunite, reunited, meet old friend
happy 1: old friend, homecoming
happy 1: come home from war, safe and sound, cured, cancer free, survive, recover from illness, first kiss
happy 1: kiss under mistletoe
happy 1: first date go well, dream job, get job, land job, new job, crush text back, crush like, hear joke, good joke
happy 1: funny video|joke|film|movie
happy 1: comedy, watch comedy, inherit fortune, inherit million, million dollars|pounds|euros
happy 1: find money|treasure|wallet again
happy 1: school is out, last day of school, snow day, friday afternoon, paid off mortgage, grandchildren visit
happy 1: grandchild, playing with
happy 1: successful, success, achieve, achievement, accomplish, mission accomplished, finish marathon, praise
happy 1: standing ovation, get praise
sad 1: funeral, burial, grave, graveside, cemetery, coffin, wake, obituary, die, died, death, dead, pass away
sad 1: passed away, passing of
sad 1: lose father|mother|dad|mum|mom|brother|sister|son|daughter
sad 1: lose child|baby|husband|wife|friend|grandmother|grandfather|grandma|grandpa
sad 1: lose dog|cat|pet|puppy|parent|job|house|home|everything|game|match|final|hope|savings|money, lose loved one
sad 1: lose best friend, lose love
sad 1: lose wallet|phone|key|keys|way, lose, loss, loser team, bereavement, bereaved, widow, widower, orphan
sad 1: miss friend|family|home|mother
sad 1: miss mum|mom|dad|him|her|them|you, break up, broke up, breakup, split up, =dumped, divorce, divorced, left by
sad 1: leave by
sad 1: leave him|her|me, be left, get fired, fired, laid off, lay off, sacked, unemployed, bankrupt, evicted, fail
sad 1: failed, fail exam|test
sad 1: flunk, flunked, bad grade|news|result, terrible news, sad news|film|movie|song|ending|story, saying goodbye
sad 1: say goodbye, goodbye
sad 1: farewell, part ways, last goodbye, fare thee well, cancer, diagnosis, terminal, terminally ill, sick child
sad 1: hospital bed, deathbed
sad 1: hear bad news, rainy day, rain on parade, cancelled, canceled, cancel holiday, nobody came, no one came
sad 1: no one come, nobody come to party
sad 1: nobody remember, forget birthday, forgot birthday, all alone, alone, stand up on date, stood up, unrequited
sad 1: ghosted, reject by
sad 1: dog die, cat die, pet die, put down dog, drop ice cream, dropped ice cream, spilt ice cream, broken toy
sad 1: lost toy, shattered dream
sad 1: war victims, refugee, homeless, poverty, starving, memorial, tombstone, miscarriage, tragedy strike, relegated
sad 1: lost final
angry 1: parking ticket|fine, speeding ticket, traffic jam, stuck in traffic, cut off in traffic, road rage
angry 1: cut in line, jump queue
angry 1: jump queue ahead, queue jumper, cheat on, cheated, cheat, lie to, lied to, lied, liar, rip off, ripped off
angry 1: scam, scammed, swindled
angry 1: rob, robbed, steal, stolen, stole, burgled, thief, insult, insult mother, vandalise, vandalised, vandalized
angry 1: scratch car|paint
angry 1: key car, keyed car, tow car, towed, dent car, spill coffee on, keep waiting, wait on hold, on hold for
angry 1: delayed again, flight delayed
angry 1: flight cancelled, flight canceled, late again, overcharged, unfairly treated, falsely accused, wrongly accused
angry 1: accused of
angry 1: noisy neighbour|neighbor, loud neighbour|neighbor, barking dog, neighbour drill, wake up at 3, computer crash
angry 1: computer crashed
angry 1: printer jam, printer jammed, blue screen, wifi down, wifi go down, internet down, slow internet, lost save
angry 1: tax bill, tax office
angry 1: bully, bullied, double crossed, stab in back, stabbed in back, backstab, backstabbed, argument
angry 1: in argument with, tailgated
angry 1: referee, bad call by referee, someone ate lunch, ate my lunch, eat my lunch, stub toe, stubbed toe
angry 1: hit thumb with hammer, honk
angry 1: slap, slapped, push in, shove, shoved, interrupted, interrupt, talk over, ignored by, ignore by, mansplain
angry 1: mansplained
fear 1: see ghost, saw ghost, ghost, haunted house, horror film|movie, dark alley, footsteps, footstep
fear 1: followed by stranger, be followed
fear 1: being followed, stalked, stalker, burglar, intruder, break in, home alone at night, alone in dark, dark forest
fear 1: dark cellar
fear 1: noise in night, strange noise, monster, monster under bed, under bed, spider, snake, shark, =bear, bears, wolf
fear 1: tiger, lion, chased, chase by
fear 1: =rat, rats, tarantula, scorpion, zombie, vampire, demon, killer, murderer, gun, gunpoint, at gunpoint, knife
fear 1: knifepoint, bomb
fear 1: explosion, earthquake, tsunami, tornado, hurricane, shipwreck, sinking ship, drown, drowning, plane crash
fear 1: turbulence
fear 1: plane go down, brakes fail, brakes failed, edge of cliff, cliff, cliff edge, high ledge, fall from, heights
fear 1: rollercoaster
fear 1: roller coaster, lift stuck, stuck in lift|elevator, dentist, dentist chair, at dentist, injection, needle
fear 1: surgery, operation
fear 1: exam tomorrow, before exam, big exam, job interview, first day at school, speak in public, public speaking
fear 1: stage before
fear 1: test result, wait for result, wait for diagnosis, lost in forest|wood|woods, lost child, lose child in crowd
fear 1: child missing
fear 1: missing child, kidnapped, hostage, threatened with, war zone, air raid, sirens, fire alarm, house on fire
fear 1: burning house, on fire
fear 1: bump in night, thunderstorm, thunder, lightning, storm at sea, bite by dog, called into bosses office
fear 1: police at door, see bear|wolf|shark
disgusted 1: smell rotten food|milk|egg|eggs|meat|fish, rotten food|egg|eggs|meat|fish, sour milk
disgusted 1: spoiled|spoilt milk|food, mould|mold
disgusted 1: mouldy|moldy bread|cheese, garbage, rubbish bin, trash can, bin juice, sewer, sewage, toilet, dirty toilet
disgusted 1: public toilet
disgusted 1: clogged toilet, cockroach, roach, maggot, worm in apple, worm, fly in soup, bug in soup, hair in soup|food
disgusted 1: hair in
disgusted 1: in soup, slug, slime, snot, booger, pus, earwax, spit, saliva, diaper, nappy, dirty diaper|nappy, poo
disgusted 1: poop, dog poo|poop
disgusted 1: dog mess, crap on shoe, step in dog poo|poop|mess, step in, faeces, feces, diarrhea, diarrhoea, urine, pee
disgusted 1: puddle of vomit
disgusted 1: bad breath, armpit, body odour|odor, sweaty sock|socks, dirty sock|socks, smelly feet, unwashed, fart
disgusted 1: farted, carcass, corpse
disgusted 1: dead rat|mouse, dead animal, roadkill, liver and, eat liver, raw liver, eat insect, eat bug, dirty dishes
disgusted 1: drain, clogged drain
disgusted 1: bitter medicine, taste medicine, cough syrup, foul tasting, tastes bad, taste bad, taste awful
disgusted 1: tastes awful, smell bad
disgusted 1: smells bad, smell awful, chew with mouth open, chewing gum under table, gum under table, pimple
disgusted 1: pop pimple, open wound, leeches, leech
surprised 1: unexpected visitor, unexpected guest, unexpected gift, surprise party, surprise guest, ufo, alien, aliens
surprised 1: magic trick, magician
surprised 1: see unicorn, unicorn, meteor, balloon pop, balloon burst, balloon popping, loud bang, sudden noise
surprised 1: sudden bang, jack in box
surprised 1: rabbit out of hat, long lost, long lost twin|brother|sister|friend, twin, twist ending, sees celebrity
surprised 1: meet celebrity
surprised 1: see celebrity, celebrity, hear secret, big reveal, reveal, unmasked, discover, discovers, miracle
surprised 1: impossible, popped out
surprised 1: out of thin air, walk in on, pregnant test positive, elephant in, suddenly appear, suddenly, all of sudden
surprised 1: talking dog, price of
surprised 1: sees bill, see bill, see price, upside down world, coincidence, what odds, breaking news, record breaking
surprised 1: world record
contempt 1: inferior, amateur, amateurs, beneath him|her|them, peasant, peasants, fan of rival, rival, cheap suit
contempt 1: cheap imitation
contempt 1: tacky, kitsch, bad excuse, lame excuse, flat earther, conspiracy theorist, self proclaimed expert
contempt 1: obvious lie, cheap trick
neutral 0: waiting for bus, wait for bus, read news, read the news, newsreader, weather report, passport photo
neutral 0: passport, mugshot, id photo
neutral 0: phone book, reading phone book, shopping list, weather, meeting, doing nothing, manual, instructions, office
happy 1: exactly bike, get what wish for, what wished for, wished for, come home to family, come back to family
happy 1: back from war
happy 1: home to family, return home, back home, see family again, see mother again, first step of baby, baby laugh
happy 1: sees puppy
happy 1: pizza, feast, picnic, champagne, toast to, fireworks, carnival, concert, festival, dessert, candy, sweets
happy 1: lollipop, cake, new toy
happy 1: father come home, mother come home, full marks, top grade, top marks, job offer, scholarship, jackpot
happy 1: free ticket, sold out show
happy 1: finish project, last exam, lie on beach, first snow, lottery, surprise holiday, medal, win oscar, oscar
happy 1: grammy, applause
sad 1: in hospital, to hospital, hospital, ambulance, coma, ill, illness, disease, accident, car accident, car crash
sad 1: injured, injury
sad 1: war, miss last train alone, move away, best friend move, empty nest, empty chair, old photo of, photo of late
sad 1: late husband|wife
sad 1: get dumped, be dumped, by text message, letter from front, bury dog|cat|hamster|father|mother, hamster
sad 1: dead goldfish, goldfish
sad 1: lost child, wilted flower, last day together, end of summer holiday, ruin, ruined dress|dinner|cake
sad 1: homework eaten, last place
angry 1: given bath, cat bath, cat in bath, wet cat, someone steal, bicycle stolen, bike stolen
angry 1: steal bicycle|bike|car|phone|wallet|purse
angry 1: lose game again, teenager slam, door slammed, broken promise, break promise, taxes, landlord, rent increase
angry 1: boss yell, customer service
angry 1: unpaid, not paid, unjust, rude waiter|customer|driver, spoiler, spoil ending, noisy, loud music at night
angry 1: mosquito, telemarketer
angry 1: spam call, wrong order, cold coffee, broken phone, phone break, screen crack, deadline moved
angry 1: meeting that could be email, lag
fear 1: twig snap, branch crack, floor creak, door creak, creak, creaking, midnight, shadow, shadows, in dark, darkness
fear 1: basement, attic, cemetery at night
fear 1: leave oven|stove|iron|tap on, left oven|stove|iron|tap on, forget oven, oven on, lose passport, forget passport
fear 1: lost passport, crash, falling
fear 1: phone ring at night, call at 3, unknown caller at night, lump in breast, biopsy, principal office, headmaster
fear 1: called to headmaster
fear 1: exam, test tomorrow, deadline, deadline tomorrow, interview, audition, first parachute, parachute jump, bungee
fear 1: bungee jump, skydive
fear 1: turbulent flight, plane shake, boss want to see, we need to talk, wasp, bee, swarm, crocodile, alligator
fear 1: dark water, abyss, prison
disgusted 1: milk go off, milk went off, off milk, sniff milk, old fridge, fridge smell, something in fridge
disgusted 1: public restroom, used tissue, tissue
disgusted 1: hairball, cat vomit, flies, fly on food, oyster, snail, brussels sprouts, broccoli, spinach, medicine
disgusted 1: expired, stale, grease trap
disgusted 1: toenail, toenails, nose picking, pick nose, picking nose, licking floor, compost, dumpster, landfill
disgusted 1: swamp, sticky floor, lice, flea, fleas
surprised 1: door fly open, confetti, ghost of past, never seen before, huge bill, plates fall, glass break
surprised 1: glass shatter, phone explode, snow in july
surprised 1: baby speak, baby first word, baby first words, winner announced, positive test, letter from king, dinosaur
contempt 1: beggar look, cheap wine, bad art, amateur painting, bad singer, someone else mistake, poor excuse
contempt 1: wrong fork, noob, noobs, loser of
neutral 0: after war, war is over, end of war, post war
"""
