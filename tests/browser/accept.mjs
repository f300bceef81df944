// Acceptance of the pack in a real browser, against a running ComfyUI.
//   node accept.mjs BASE_URL PACK_FOLDER_NAME WORKFLOWS OUT
// Each workflow is opened from Templates, compared with its API file, queued, waited for, and what it makes looked for on
// the node; then dropped onto the canvas as a file, turned into a subgraph, saved, loaded and run again. A mistyped emotion
// and a broken model file must reach the user in our words. Prints one line a check; exits 1 if any failed.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

const { chromium } = createRequire(process.env.PLAYWRIGHT_FROM ?? import.meta.url)('playwright-core');
const [base, pack, folder, out] = process.argv.slice(2);
fs.mkdirSync(out, { recursive: true });
let failures = 0;
const report = (good, what, more = '') => {
  failures += good ? 0 : 1;
  console.log(good ? 'ok  ' : 'FAIL', what, more);
};

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking'],
});
const page = await (await browser.newContext({ viewport: { width: 1700, height: 950 } })).newPage();
const pageErrors = new Set();
page.on('pageerror', (error) => pageErrors.add(String(error).slice(0, 160)));

async function open(query = '') {
  await page.goto(base + query, { waitUntil: 'domcontentloaded' });
  await page.waitForFunction(
    () => window.app?.graph && Object.keys(window.LiteGraph?.registered_node_types ?? {}).includes('MoEESampler'),
    null,
    { timeout: 120_000 },
  );
  await page.evaluate(() => {
    window.seen = [];
    for (const name of ['executed', 'execution_success', 'execution_error', 'execution_interrupted'])
      window.app.api.addEventListener(name, (event) => window.seen.push([name, event.detail]));
  });
  await page.waitForTimeout(2500);
}

async function run(limit = 180_000) {
  await page.evaluate(async () => {
    window.seen.length = 0;
    window.app.lastNodeErrors = null;
    await window.app.queuePrompt(0, 1);
  });
  await page
    .waitForFunction(
      () =>
        window.seen.some(([name]) => name !== 'executed') ||
        Object.keys(window.app.lastNodeErrors ?? {}).length > 0,
      null,
      { timeout: limit },
    )
    .catch(() => {});
  return page.evaluate(() => {
    const end = window.seen.find(([name]) => name !== 'executed');
    return {
      end: end?.[0] ?? 'nothing',
      message: end?.[1]?.exception_message ?? '',
      refused: JSON.stringify(window.app.lastNodeErrors ?? {}),
      videos: window.seen.filter(([name, d]) => name === 'executed' && d.output?.animated?.[0]).length,
      pictures: window.seen.filter(([name, d]) => name === 'executed' && d.output?.images?.length && !d.output.animated?.[0])
        .length,
    };
  });
}

const plain = (graph) =>
  JSON.stringify(
    Object.keys(graph)
      .sort((a, b) => Number(a) - Number(b))
      .map((key) => [key, graph[key].class_type, Object.entries(graph[key].inputs).sort()]),
  );
const prompt = () => page.evaluate(async () => (await window.app.graphToPrompt()).output);
const shot = (name) => page.screenshot({ path: path.join(out, `${name}.png`) });

await open();
console.log('frontend', await page.evaluate(() => window.__COMFYUI_FRONTEND_VERSION__));
const names = fs.readdirSync(folder).filter((name) => name.endsWith('.json')).map((name) => name.slice(0, -5)).sort();
for (const name of names) {
  const file = path.join(folder, `${name}.json`);
  const asked = JSON.parse(fs.readFileSync(path.join(folder, 'api', `${name}.json`)));
  const wanted = plain(asked);
  const ending = (type) => Object.values(asked).filter((node) => node.class_type === type).length;
  const [videos, pictures] = [ending('MoEEVideoCombine') + ending('MoEERenderMotion'), ending('PreviewImage')];

  await open(`/?template=${name}&source=${pack}`);
  report(plain(await prompt()) === wanted, `${name}: from Templates, equal to its API file`);
  const result = await run();
  report(
    result.end === 'execution_success' && videos + pictures > 0 && result.videos === videos && result.pictures >= pictures,
    `${name}: runs from Templates`,
    `${result.videos} of ${videos} videos, ${result.pictures} pictures ${result.message}`,
  );
  await page.waitForTimeout(1500);
  const playing = await page.evaluate(
    () =>
      [...document.querySelectorAll('video')].some((video) => video.videoWidth > 0) ||
      window.app.graph.nodes.some((node) => (node.imgs ?? []).length || (node.widgets ?? []).some((w) => /video/.test(w.name))),
  );
  report(playing, `${name}: what was made is on the node`);
  await shot(`${name}_done`);

  await open();
  const apiFile = JSON.parse(fs.readFileSync(path.join(folder, 'api', `${name}.json`)));
  await page.evaluate(async ([graph, title]) => window.app.loadApiJson(graph, title), [apiFile, name]);
  await page.waitForTimeout(500);
  const back = plain(await prompt());
  report(back === wanted, `${name}: API -> UI -> API`, back === wanted ? '' : back);

  await page.evaluate(() => window.app.graph.clear());
  const transfer = await page.evaluateHandle(
    ([text, title]) => {
      const data = new DataTransfer();
      data.items.add(new File([text], title, { type: 'application/json' }));
      return data;
    },
    [fs.readFileSync(file, 'utf8'), `${name}.json`],
  );
  await page.dispatchEvent('#graph-canvas', 'drop', { dataTransfer: transfer });
  await page.waitForTimeout(1500);
  report(plain(await prompt()) === wanted, `${name}: dropped onto the canvas`);
}

// A subgraph of everything but the first and the last node, saved, loaded again and run.
await open(`/?template=first_portrait&source=${pack}`);
const saved = await page.evaluate(() => {
  const graph = window.app.graph;
  const inner = graph.nodes.filter((node) => ['MoEESampler', 'MoEESamples'].includes(node.type));
  graph.convertToSubgraph(new Set(inner));
  return JSON.parse(JSON.stringify(graph.serialize()));
});
await page.evaluate(async (graph) => {
  window.app.graph.clear();
  await window.app.loadGraphData(graph, true, true, 'subgraph');
}, saved);
await page.waitForTimeout(1000);
const shape = (graph) => {
  const kind = (value) =>
    Array.isArray(value) ? [graph[value[0]]?.class_type ?? `nothing at ${value[0]}`, value[1]] : value;
  return JSON.stringify(
    Object.values(graph)
      .map((node) => [node.class_type, Object.entries(node.inputs).map(([key, value]) => [key, kind(value)]).sort()])
      .sort(),
  );
};
const flat = shape(await prompt());
const original = shape(JSON.parse(fs.readFileSync(path.join(folder, 'api', 'first_portrait.json'))));
report(flat === original, 'a subgraph, saved and loaded again, is the same graph', flat === original ? '' : flat);
const nested = await run();
report(nested.end === 'execution_success', 'a subgraph, saved and loaded again, runs', nested.message + nested.refused.slice(0, 200));
await shot('subgraph');

// What a user sees of a mistake. Newer frontends show a short notice first, the reason is behind its buttons.
async function shown(sentence) {
  const there = () => page.evaluate(([source]) => new RegExp(source).test(document.body.innerText), [sentence.source]);
  const left = [/view details|see error/i, /^info for /i].map((name) => page.getByRole('button', { name }).first());
  for (let turn = 0; turn < 20; turn++) {
    if (await there()) return true;
    if (left.length && (await left[0].isVisible())) await left.shift().click();
    await page.waitForTimeout(250);
  }
  return false;
}

await open(`/?template=emotion_timeline&source=${pack}`);
await page.evaluate(() => {
  const node = window.app.graph.nodes.find((one) => one.type === 'MoEEEmotionTimeline');
  node.widgets.find((one) => one.name === 'timeline').value = '0 neutral; 1 hapy';
});
const typo = await run(20_000);
report(/timeline key 2/.test(typo.refused), 'a mistyped emotion is refused before the queue', typo.refused.slice(0, 200));
report(await shown(/timeline key 2: unknown emotion 'hapy'; did you mean 'happy'/), 'the mistyped emotion is explained on the screen');
await shot('typo');

await open(`/?template=first_portrait&source=${pack}`);
const broken = await page.evaluate(() => {
  const node = window.app.graph.nodes.find((one) => one.type === 'MoEELoadModel');
  const widget = node.widgets.find((one) => one.name === 'checkpoint');
  const bad = (widget.options.values ?? []).find((name) => name.startsWith('broken'));
  if (bad) widget.value = bad;
  return bad ?? '';
});
if (broken) {
  const refused = await run(20_000);
  report(/not a safetensors file/.test(refused.refused + refused.message), 'a broken file is named', refused.refused.slice(0, 200));
  report(await shown(/broken\.safetensors is not a safetensors file/), 'the broken file is explained on the screen');
  await shot('broken_file');
} else console.log('skip a broken file: none called broken*.safetensors in models/moee');

console.log('page errors:', [...pageErrors].join(' | ') || 'none');
await browser.close();
process.exit(failures ? 1 : 0);
