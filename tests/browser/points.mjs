// The editor of face points in a real browser, against a running ComfyUI.
//   node points.mjs BASE_URL OUT [PORTRAIT]
// PORTRAIT is a picture of one face from the front (the pack's own by default). For the classic and the new node renderer:
// Load Image and Face Points, the editor opened by its button, points dragged, zoomed, nudged, undone, a crossing drag
// refused, the text typed by hand followed, and the node run. Prints one line a check; exits 1 if any failed.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

const { chromium } = createRequire(process.env.PLAYWRIGHT_FROM ?? import.meta.url)('playwright-core');
const [base, out, portrait = new URL('../../moee_core/assets/portraits/mira.png', import.meta.url).pathname] =
  process.argv.slice(2);
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
const pageErrors = new Set();

async function check(renderer) {
  const vue = renderer === 'vue';
  const page = await (await browser.newContext({ viewport: { width: 1500, height: 950 } })).newPage();
  page.on('pageerror', (error) => pageErrors.add(`${renderer}: ${String(error).slice(0, 160)}`));
  const shot = (name) => page.screenshot({ path: path.join(out, `${renderer}_${name}.png`) });
  const says = (good, what, more) => report(good, `${renderer}: ${what}`, more);

  // No welcome over the page, and the renderer chosen before it is drawn.
  const settings = { 'Comfy.TutorialCompleted': true, 'Comfy.VueNodes.Enabled': vue };
  await fetch(`${base}/api/settings`, { method: 'POST', body: JSON.stringify(settings) });
  await page.goto(base, { waitUntil: 'domcontentloaded' });
  await page.waitForFunction(
    () => window.app?.graph && Object.keys(window.LiteGraph?.registered_node_types ?? {}).includes('MoEEFacePoints'),
    null,
    { timeout: 120_000 },
  );
  await page.waitForTimeout(2500);
  await page.evaluate(async (data) => {
    window.app.graph.clear();
    const body = new FormData();
    const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
    body.append('image', new File([bytes], 'points_test.png', { type: 'image/png' }));
    body.append('overwrite', 'true');
    await window.app.api.fetchApi('/upload/image', { method: 'POST', body });
    const load = window.LiteGraph.createNode('LoadImage');
    const points = window.LiteGraph.createNode('MoEEFacePoints');
    load.pos = [60, 120];
    points.pos = [520, 120];
    window.app.graph.add(load);
    window.app.graph.add(points);
    const file = load.widgets.find((widget) => widget.name === 'image');
    file.options.values.push('points_test.png');
    file.value = 'points_test.png';
    load.connect(0, points, points.inputs.findIndex((input) => input.name === 'image'));
    window.app.canvas.ds.scale = 1;
    window.app.canvas.ds.offset = [0, 0];
    window.app.canvas.setDirty(true, true);
    window.testNode = points;
    window.seen = [];
    for (const name of ['executed', 'execution_success', 'execution_error'])
      window.app.api.addEventListener(name, (event) => window.seen.push([name, event.detail]));
  }, fs.readFileSync(portrait).toString('base64'));
  await page.waitForTimeout(1500);
  await shot('node_empty');

  const text = () => page.evaluate(() => window.testNode.widgets.find((one) => one.name === 'points').value);
  const dialog = page.locator('dialog.moee-face');
  const status = dialog.getByRole('status');
  const field = dialog.getByLabel('Point', { exact: true });
  const press = (name) => dialog.getByRole('button', { name }).click();
  const apply = dialog.getByRole('button', { name: /Write the points/ });
  const canvas = dialog.locator('canvas');

  /** Opens the editor as a person does: by the button on the node. */
  async function edit() {
    // The panel of properties, where it is open, comes first in the page and shows the same button.
    if (vue) await page.getByRole('button', { name: 'Edit points' }).last().click();
    else {
      const [x, y] = await page.evaluate(() => {
        const { testNode: node, app } = window;
        const widget = node.widgets.find((one) => one.name === 'Edit points');
        const { offset, scale } = app.canvas.ds;
        const { left, top } = app.canvas.canvas.getBoundingClientRect();
        const at = [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10];
        return [(at[0] + offset[0]) * scale + left, (at[1] + offset[1]) * scale + top];
      });
      await page.mouse.click(x, y);
    }
    await dialog.waitFor();
    await page.waitForTimeout(400);
  }

  /** Where a picture's pixel is on the page, before anyone zooms: the whole picture fits with a margin of 16. */
  async function onPage([x, y], [width, height]) {
    const box = await canvas.boundingBox();
    const scale = Math.min((box.width - 32) / width, (box.height - 32) / height);
    return [box.x + box.width / 2 + (x - (width - 1) / 2) * scale, box.y + box.height / 2 + (y - (height - 1) / 2) * scale];
  }
  async function drag([x0, y0], [x1, y1], options = {}) {
    await page.mouse.move(x0, y0);
    await page.mouse.down(options);
    await page.mouse.move((x0 + x1) / 2, (y0 + y1) / 2, { steps: 3 });
    await page.mouse.move(x1, y1, { steps: 3 });
    await page.mouse.up(options);
  }
  /** Drags a point by pixels of the page. */
  async function dragPoint(set, name, [dx, dy]) {
    const [x, y] = await onPage(set.points[name], [set.width, set.height]);
    await drag([x, y], [x + dx, y + dy]);
  }

  // The average face, three points dragged.
  await edit();
  await shot('editor_start');
  says(await apply.isEnabled(), 'the average face can be applied');
  await apply.click();
  says((await dialog.count()) === 0, 'Apply closes the editor');
  const start = JSON.parse(await text());
  says(start.format === 'moee-points-1' && Object.keys(start.points).length === 38, 'Apply writes 38 points');
  await page.waitForTimeout(600);
  await shot('node_filled');

  await edit();
  const [mouth, brow, chin] = ['mouth_R', 'brow_L_middle', 'chin'];
  await dragPoint(start, mouth, [-22, 9]);
  says((await field.inputValue()).startsWith(mouth), 'the dragged point is named', await field.inputValue());
  await dragPoint(start, brow, [4, -18]);
  await dragPoint(start, chin, [3, 25]);
  await shot('editor_dragged');
  await dialog.getByRole('heading').click(); // takes the focus away
  await page.keyboard.press('Control+z');
  await page.keyboard.press('Control+z');
  await page.keyboard.press('Control+Shift+z');
  await page.waitForTimeout(300);
  says(await page.evaluate(() => window.app.graph.nodes.includes(window.testNode)), 'undo stays inside the editor');
  await apply.click();
  const dragged = JSON.parse(await text());
  const moved = (name, set = dragged, from = start) => set.points[name].map((v, axis) => v - from.points[name][axis]);
  says(moved(mouth)[0] < -5 && moved(mouth)[1] > 2, 'a dragged point is in the text', String(moved(mouth)));
  says(moved(brow)[1] < -5, 'a redone drag is in the text', String(moved(brow)));
  says(moved(chin).every((v) => v === 0), 'an undone drag is not', String(moved(chin)));

  // Zoom towards the pointer keeps what is under it; panning; nudging.
  await edit();
  const nose = await onPage(dragged.points.nose_base, [dragged.width, dragged.height]);
  await page.mouse.move(...nose);
  for (let turn = 0; turn < 6; turn++) await page.mouse.wheel(0, -240);
  await page.waitForTimeout(300);
  await shot('editor_zoomed');
  await page.mouse.click(...nose);
  says((await field.inputValue()).startsWith('nose_base'), 'zoom keeps the point under the pointer', await field.inputValue());
  await drag([nose[0] + 300, nose[1] - 60], [nose[0] + 260, nose[1] - 40], { button: 'middle' });
  await page.mouse.click(nose[0] - 40, nose[1] + 20);
  says((await field.inputValue()).startsWith('nose_base'), 'the middle button pans');
  for (const key of ['ArrowLeft', 'ArrowLeft', 'Shift+ArrowDown']) await page.keyboard.press(key);
  await press('Show the whole picture');
  await dialog.getByLabel('More points').check();
  await page.waitForTimeout(300);
  await shot('editor_more_points');
  await press('Zoom to the face');
  await page.waitForTimeout(300);
  await shot('editor_face');
  await apply.click();
  const nudged = JSON.parse(await text());
  says(String(moved('nose_base', nudged, dragged).map((v) => Math.round(v * 100) / 100)) === '-2,5', 'arrow keys nudge');

  // A crossing is refused in words, and can be undone.
  await edit();
  const scale = (await canvas.boundingBox()).height / nudged.height;
  const lower = nudged.points.lip_lower_outer_M[1] - nudged.points.lip_upper_outer_M[1];
  await dragPoint(nudged, 'lip_upper_outer_M', [0, (lower + 0.15 * 120) * scale]);
  await page.waitForTimeout(300);
  await shot('editor_crossed');
  says(/lips are crossed/.test(await status.textContent()), 'a crossing is refused in words', await status.textContent());
  says(await apply.isDisabled(), 'a crossing cannot be applied');
  await press('Undo (Ctrl+Z)');
  says(await apply.isEnabled(), 'undo makes it a face again');
  await page.keyboard.press('Escape');
  await page.waitForTimeout(100);
  await shot('editor_left');
  const left = (await dialog.count()) ? await status.textContent() : '';
  says(!left && (await text()) === JSON.stringify(nudged), 'Escape closes and changes nothing', left);

  // The text is the truth.
  const typed = { ...nudged, points: { ...nudged.points, chin: [nudged.points.chin[0] - 31, nudged.points.chin[1] - 12] } };
  const area = vue
    ? page.locator('[data-node-id] textarea').first()
    : page.locator('textarea.comfy-multiline-input').first();
  await area.fill(JSON.stringify(typed));
  await page.waitForTimeout(600);
  await edit();
  for (let turn = 0; turn < 40 && !(await field.inputValue()).startsWith('chin'); turn++) await page.keyboard.press('PageDown');
  const want = typed.points.chin.map((v) => v.toFixed(1)).join(', ');
  says((await field.inputValue()) === `chin  ${want}`, 'the editor follows a typed text', await field.inputValue());
  const again = { ...typed, points: { ...typed.points, chin: nudged.points.chin } };
  await page.evaluate((value) => {
    window.testNode.widgets.find((one) => one.name === 'points').value = value;
  }, JSON.stringify(again));
  await page.waitForTimeout(900);
  const back = again.points.chin.map((v) => v.toFixed(1)).join(', ');
  says((await field.inputValue()) === `chin  ${back}`, 'an open editor follows, too', await field.inputValue());
  await press('Close and change nothing');
  await area.fill('{"format": "moee-points-1"');
  await page.waitForTimeout(600);
  await edit();
  says(/cannot be used: points are not JSON/.test(await status.textContent()), 'a broken text is explained');
  await shot('editor_broken_text');

  // The average face in a box that is drawn.
  await press('Place the average face in a box you drag');
  const size = [start.width, start.height];
  const corners = [[0.2, 0.14], [0.8, 0.8]].map((at) => [at[0] * size[0], at[1] * size[1]]);
  await drag(await onPage(corners[0], size), await onPage(corners[1], size));
  await shot('editor_boxed');
  await apply.click();
  const boxed = JSON.parse(await text());
  says(Math.abs(boxed.points.chin[1] - corners[1][1]) < 2, 'the average face stands in the box', String(boxed.points.chin));

  // What the editor shows is what the node makes of it.
  await page.evaluate(async () => {
    window.seen.length = 0;
    await window.app.queuePrompt(0, 1);
  });
  await page.waitForFunction(() => window.seen.some(([name]) => name !== 'executed'), null, { timeout: 60_000 });
  await page.waitForTimeout(800);
  const run = await page.evaluate(() => {
    const end = window.seen.find(([name]) => name !== 'executed');
    const output = window.seen.find(([name, d]) => name === 'executed' && d.output?.moee_points)?.[1].output;
    return { end: end[0], message: end[1]?.exception_message ?? '', points: output?.moee_points?.[0] ?? '{}' };
  });
  says(run.end === 'execution_success', 'the node runs', run.message);
  const kept = await page.evaluate(async () => {
    const { output, workflow } = await window.app.graphToPrompt();
    const node = workflow.nodes.find((one) => one.type === 'MoEEFacePoints');
    return [Object.keys(output[node.id].inputs), node.widgets_values.length, node.widgets_values[0]];
  });
  says(String(kept[0].sort()) === 'image,points', 'the preview and the button are not sent', String(kept[0]));
  says(kept[1] === 1 && kept[2] === JSON.stringify(boxed), 'a saved workflow holds the text alone', String(kept[1]));
  says(JSON.stringify(JSON.parse(run.points).points) === JSON.stringify(boxed.points), 'it used what was applied');
  await page.evaluate(() => {
    window.testNode.disconnectInput(window.testNode.inputs.findIndex((input) => input.name === 'image'));
  });
  await page.waitForTimeout(600);
  await edit();
  await shot('editor_from_run');
  says(!/not known/.test(await status.textContent()), 'after a run the picture needs no Load Image');
  await press('Close and change nothing');
  await shot('node_done');

  // Points that come from another node are shown, and not written over.
  await page.evaluate(async () => {
    const samples = window.LiteGraph.createNode('MoEESamples');
    samples.pos = [60, 520];
    window.app.graph.add(samples);
    for (const name of ['image', 'points']) {
      const [from, to] = [samples.outputs, window.testNode.inputs];
      samples.connect(from.findIndex((one) => one.name === name), window.testNode, to.findIndex((one) => one.name === name));
    }
    window.seen.length = 0;
    await window.app.queuePrompt(0, 1);
  });
  await page.waitForFunction(() => window.seen.some(([name]) => name !== 'executed'), null, { timeout: 60_000 });
  await page.waitForTimeout(800);
  await edit();
  await shot('editor_linked');
  says(/come from another node/.test(await status.textContent()), 'linked points are explained', await status.textContent());
  says(await dialog.locator('input.apply').isDisabled(), 'linked points cannot be written over');
  await press('Close and change nothing');
  await page.context().close();
}

for (const renderer of (process.env.RENDERERS ?? 'classic,vue').split(',')) await check(renderer);
console.log('page errors:', [...pageErrors].join(' | ') || 'none');
await browser.close();
process.exit(failures ? 1 : 0);
