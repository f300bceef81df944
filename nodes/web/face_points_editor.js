// The editor of face points: a modal dialog over the page, the same whatever draws the nodes below it.
//
// Every control is an <input>: frontends that have no notion of a foreign modal leave Ctrl+Z to a focused input, and
// would undo in the graph otherwise.

import {
  colourOf, drawHandle, drawLabel, drawLines, drawPicture, drawSides, fitted, toPicture, toScreen,
} from './face_points_draw.js';
import { beginning, complete, fault, frameOf, irisOf, partOf, serialise, template } from './face_points_geometry.js';

const REACH = 13; // CSS pixels around a point in which the pointer takes it
const HISTORY = 200;
const HINT =
  'Drag the points onto the face · Shift-drag moves a whole part · wheel zooms · drag beside a point pans · ' +
  'arrows nudge (Shift: 5 px) · PageUp/PageDown choose a point · Delete lets an extra point follow its neighbours again';
const BEGIN_HINT =
  'An average face to begin with. If it stands wrong, choose Draw face box and drag from the hairline to the chin and ' +
  'from ear to ear; then drag the points onto the face.';
const BOX_HINT = 'Drag a box from the hairline to the chin and from ear to ear. Escape leaves it.';

const STYLE = `
.moee-face { width: 94vw; height: 92vh; max-width: none; max-height: none; padding: 0; overflow: hidden;
  color: var(--input-text, #ddd); background: var(--comfy-menu-bg, #202024);
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 10px; box-shadow: 0 8px 40px rgba(0, 0, 0, 0.6);
  font: 13px/1.4 system-ui, sans-serif; }
.moee-face[open] { display: flex; flex-direction: column; margin: auto; }
.moee-face::backdrop { background: rgba(0, 0, 0, 0.6); }
.moee-face header, .moee-face footer { display: flex; flex-wrap: wrap; align-items: center; gap: 8px; padding: 9px 14px; }
.moee-face h2 { margin: 0 6px 0 0; font-size: 15px; font-weight: 600; }
.moee-face .gap { flex: 1; }
.moee-face .bar { width: 1px; height: 20px; margin: 0 3px; background: var(--border-color, #4e4e4e); }
.moee-face input[type=button] { padding: 6px 12px; cursor: pointer; color: inherit; font: inherit;
  background: var(--comfy-input-bg, #2e2e33); border: 1px solid var(--border-color, #4e4e4e); border-radius: 6px; }
.moee-face input[type=button]:hover:enabled { filter: brightness(1.25); }
.moee-face input[type=button]:disabled { opacity: 0.4; cursor: default; }
.moee-face input[aria-pressed=true] { border-color: #4f9cf9; color: #9cc8ff; }
.moee-face input.apply:enabled { background: #1f6fd6; border-color: #1f6fd6; color: #fff; }
.moee-face input:focus-visible { outline: 2px solid #4f9cf9; outline-offset: 1px; }
.moee-face label { display: flex; align-items: center; gap: 6px; }
.moee-face input.point { width: 250px; padding: 6px 8px; color: inherit; font: 12px/1.3 ui-monospace, monospace;
  background: var(--comfy-input-bg, #2e2e33); border: 1px solid var(--border-color, #4e4e4e); border-radius: 6px; }
.moee-face .stage { position: relative; flex: 1; min-height: 0; background: #131315; }
.moee-face canvas { position: absolute; inset: 0; width: 100%; height: 100%; touch-action: none; }
.moee-face .says { flex: 1 1 300px; min-height: 2.8em; display: flex; align-items: center;
  color: var(--descrip-text, #a0a0a0); }
.moee-face .says.warn { color: #ffc46b; }
.moee-face .says.bad { color: #ff7b7b; font-weight: 600; }
`;

function element(tag, attributes = {}, children = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export class FacePointsEditor {
  #table;
  #picture = null;
  #start = null; // what the last run began with, as JSON
  #text = ''; // what the set was last read from
  #states = []; // the past and the undone future
  #now = 0;
  #draft = null; // the set while a point is dragged
  #shown = null; // { set, full, fault } that is on the screen
  #view = null;
  #selected = '';
  #hovered = '';
  #gesture = null;
  #boxing = false;
  #box = null;
  #notice = '';
  #locked = '';
  #leaving = false; // Escape was pressed with changes on the screen
  #onApply;
  #onClose;

  /** `onApply(text)` is given the JSON form, `onClose()` is called at every end; `locked` says why Apply is refused. */
  constructor({ table, title, locked = '', onApply, onClose = () => {} }) {
    this.#table = table;
    this.#locked = locked;
    this.#onApply = onApply;
    this.#onClose = onClose;
    this.#build(title);
  }

  /** Shows a picture (or none yet) with what `text` says of it; a later call replaces both, and can be undone. */
  show({ picture, text, start }) {
    const sameSize = this.#picture?.naturalWidth === picture?.naturalWidth;
    const first = !this.#shown;
    this.#picture = picture;
    this.#start = start;
    this.#text = text;
    const size = picture ? [picture.naturalWidth, picture.naturalHeight] : null;
    const { set, notice } = beginning(text, size, start, this.#table);
    this.#notice = notice && `The text cannot be used: ${notice}. Apply replaces it.`;
    if (!set) {
      this.#notice = 'The picture is not known yet: run the workflow once, or connect Load Image. Then edit again.';
      this.#states = [];
    } else if (!this.#states.length || !sameSize) {
      this.#states = [set];
      this.#now = 0;
    } else this.#commit(set);
    if (first || !sameSize) this.#view = null;
    this.#refresh();
  }

  /** The text the set on the screen was read from. */
  get text() {
    return this.#text;
  }

  open() {
    document.body.append(this.dialog);
    this.dialog.showModal();
    this.field.focus();
    this.#resize.observe(this.stage);
  }

  close() {
    if (!this.dialog.isConnected) return;
    this.#resize.disconnect();
    this.dialog.close();
    this.dialog.remove();
    this.#onClose();
  }

  // The page.

  #resize = new ResizeObserver(() => this.#draw());

  #build(title) {
    const button = (value, label, act, more = {}) => {
      const made = element('input', { type: 'button', value, title: label, 'aria-label': label, ...more });
      made.addEventListener('click', () => {
        act();
        if (made.disabled) this.field.focus(); // a disabled button loses the focus, but only later
      });
      return made;
    };
    this.undoButton = button('Undo', 'Undo (Ctrl+Z)', () => this.#step(-1));
    this.redoButton = button('Redo', 'Redo (Ctrl+Shift+Z)', () => this.#step(1));
    this.boxButton = button(
      'Draw face box', 'Place the average face in a box you drag', () => this.#setBoxing(!this.#boxing),
      { 'aria-pressed': 'false' },
    );
    this.more = element('input', { type: 'checkbox' });
    this.more.addEventListener('change', () => this.#refresh());
    this.field = element('input', { type: 'text', class: 'point', readonly: '', placeholder: 'no point selected' });
    this.says = element('div', { class: 'says', role: 'status', 'aria-live': 'polite' });
    this.applyButton = button('Apply', 'Write the points into the node', () => this.#apply(), { class: 'apply' });
    this.canvas = element('canvas', { role: 'img', 'aria-label': 'The portrait with its points' });
    this.stage = element('div', { class: 'stage' }, [this.canvas]);
    const bar = () => element('span', { class: 'bar' });
    const begin = () => this.#startAgain();
    this.dialog = element('dialog', { class: 'moee-face', 'aria-label': title }, [
      element('style', {}, [STYLE]),
      element('header', { role: 'toolbar', 'aria-label': 'Editing' }, [
        element('h2', {}, [title]),
        this.undoButton, this.redoButton, bar(),
        button('Start again', 'Begin from the found face or the average face', begin), this.boxButton, bar(),
        element('label', { title: 'Inner lips, lids and irises' }, [this.more, 'More points']),
        element('span', { class: 'gap' }),
        button('Zoom to face', 'Zoom to the face', () => this.#look(true)),
        button('Whole picture', 'Show the whole picture', () => this.#look(false)),
      ]),
      this.stage,
      element('footer', {}, [
        element('label', {}, ['Point', this.field]),
        this.says,
        button('Cancel', 'Close and change nothing', () => this.close()),
        this.applyButton,
      ]),
    ]);
    this.dialog.addEventListener('keydown', (event) => this.#key(event));
    // Keys must not fall through to the graph, so whatever takes the focus away, an input gets it back.
    this.dialog.addEventListener('focusout', () =>
      setTimeout(() => {
        if (this.dialog.open && document.activeElement?.tagName !== 'INPUT') this.field.focus();
      }),
    );
    this.dialog.addEventListener('keyup', (event) => event.stopPropagation());
    this.dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      this.#escape();
    });
    this.dialog.addEventListener('close', () => this.close());
    for (const name of ['pointerdown', 'pointerup', 'click', 'dblclick', 'contextmenu', 'paste', 'copy'])
      this.dialog.addEventListener(name, (event) => event.stopPropagation());
    this.canvas.addEventListener('pointerdown', (event) => this.#press(event));
    this.canvas.addEventListener('pointermove', (event) => this.#move(event));
    for (const name of ['pointerup', 'pointercancel'])
      this.canvas.addEventListener(name, (event) => this.#release(event));
    this.canvas.addEventListener('pointerleave', () => this.#hover(''));
    this.canvas.addEventListener('wheel', (event) => this.#wheel(event), { passive: false });
    this.canvas.addEventListener('auxclick', (event) => event.preventDefault());
  }

  // The set and its history.

  get #set() {
    return this.#draft ?? this.#states[this.#now] ?? null;
  }

  #commit(set) {
    this.#draft = null;
    this.#leaving = false;
    this.#states = [...this.#states.slice(0, this.#now + 1).slice(-HISTORY), set];
    this.#now = this.#states.length - 1;
    this.#refresh();
  }

  #step(by) {
    if (!this.#states[this.#now + by]) return;
    this.#draft = this.#gesture = null;
    this.#now += by;
    this.#notice = '';
    this.#leaving = false;
    this.#refresh();
  }

  #startAgain() {
    if (!this.#set) return;
    const { width, height, source } = this.#set;
    const { set } = beginning('', [width, height], this.#start, this.#table);
    this.#notice = '';
    this.#commit({ ...set, source });
  }

  #apply() {
    if (this.applyButton.disabled) return;
    this.#text = serialise(this.#set, this.#table);
    this.#onApply(this.#text);
    this.close();
  }

  /** Names a person can take now. */
  get #names() {
    const { set } = this.#shown;
    const optional = this.#table.full.filter((name) => {
      if (this.#table.reduced.includes(name)) return false;
      return name in set.points || /^(lip|eye)_/.test(name);
    });
    return [...this.#table.reduced, ...(this.more.checked ? [...optional, ...this.#table.iris] : [])];
  }

  /** Where a point is, given or derived. */
  #place(name) {
    const { full } = this.#shown;
    if (full[name] || !name.startsWith('iris')) return full[name];
    const [x, y, radius] = irisOf(full, name[5], this.#table);
    const { right } = frameOf(full);
    return name.endsWith('edge') ? [x + right[0] * radius, y + right[1] * radius] : [x, y];
  }

  /** The set with points moved by [dx, dy]; derived ones become given, an iris has its edge with it. */
  #moved(set, names, [dx, dy]) {
    const points = { ...set.points };
    for (const name of names) {
      const iris = name.startsWith('iris') ? name.slice(0, 6) : '';
      for (const other of iris ? [iris, `${iris}_edge`] : []) points[other] ??= this.#place(other);
      const all = name === iris ? [iris, `${iris}_edge`] : [name];
      for (const one of all) {
        const [x, y] = set.points[one] ?? this.#place(one);
        points[one] = [
          Math.min(Math.max(x + dx, 0), set.width - 1), Math.min(Math.max(y + dy, 0), set.height - 1),
        ];
      }
    }
    return { ...set, points };
  }

  /** Everything that moves when `name` is dragged. */
  #group(name, whole) {
    if (!whole) return [name];
    const given = Object.keys(this.#set.points).filter((other) => partOf(other) === partOf(name));
    return given.filter((other) => !(other.endsWith('_edge') && given.includes(other.slice(0, 6))));
  }

  #deriveAgain() {
    const name = this.#selected;
    if (!name || !this.#set.points[name] || this.#table.reduced.includes(name)) return;
    const points = { ...this.#set.points };
    for (const one of name.startsWith('iris') ? [name.slice(0, 6), `${name.slice(0, 6)}_edge`] : [name])
      delete points[one];
    this.#commit({ ...this.#set, points });
  }

  // What the person sees.

  #refresh() {
    const set = this.#set;
    this.#shown = set && { set, full: complete(set.points, this.#table), fault: fault(set, this.#table) };
    const wrong = this.#shown?.fault;
    const hint = this.#now || this.#text.trim() ? HINT : BEGIN_HINT;
    const said = wrong?.reason || this.#locked || (this.#boxing ? BOX_HINT : this.#notice) || hint;
    this.says.className = `says ${wrong ? 'bad' : this.#notice || this.#locked ? 'warn' : ''}`;
    if (this.says.textContent !== said) this.says.textContent = said;
    this.applyButton.disabled = !set || Boolean(wrong || this.#locked);
    this.applyButton.title = wrong?.reason || this.#locked || 'Write the points into the node';
    this.undoButton.disabled = this.#now === 0;
    this.redoButton.disabled = this.#now >= this.#states.length - 1;
    this.boxButton.setAttribute('aria-pressed', String(this.#boxing));
    if (set && !this.#names.includes(this.#selected)) this.#selected = '';
    const place = set && this.#selected && this.#place(this.#selected);
    const kind = place && !set.points[this.#selected] ? ' (derived)' : '';
    this.field.value = place ? `${this.#selected}  ${place.map((v) => v.toFixed(1)).join(', ')}${kind}` : '';
    this.#draw();
  }

  #asked = 0;

  #draw() {
    if (!this.#asked) this.#asked = requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#asked = 0;
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    [this.canvas.width, this.canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = this.canvas.getContext('2d');
    context.scale(ratio, ratio);
    if (!this.#shown) return;
    const { set, full, fault: wrong } = this.#shown;
    this.#view ??= fitted([-0.5, -0.5, set.width - 0.5, set.height - 0.5], width, height, 16);
    const [view, table] = [this.#view, this.#table];
    drawPicture(context, view, this.#picture, [set.width, set.height]);
    const blamed = this.#blamed(wrong?.names ?? []);
    drawLines(context, view, full, table, { blamed: wrong?.names });
    drawSides(context, view, full);
    const special = [this.#hovered, this.#selected];
    const names = this.#names.filter((name) => !special.includes(name));
    for (const name of [...names, ...special.filter((one) => one && this.#names.includes(one))])
      drawHandle(context, toScreen(view, this.#place(name)), colourOf(name, table), {
        given: name in set.points,
        bad: blamed.includes(name),
        selected: name === this.#selected,
        hovered: name === this.#hovered,
      });
    const named = this.#gesture?.names ? this.#selected : this.#hovered || this.#selected;
    if (named) drawLabel(context, toScreen(view, this.#place(named)), named, colourOf(named, table), width);
    if (this.#box) {
      const [x0, y0, x1, y1] = this.#box;
      const [left, top] = toScreen(view, [x0, y0]);
      context.strokeStyle = '#4f9cf9';
      context.setLineDash([6, 4]);
      context.strokeRect(left, top, (x1 - x0) * view.scale, (y1 - y0) * view.scale);
    }
  }

  /** The points a fault names; for derived ones also the given neighbours they follow. */
  #blamed(names) {
    const { points } = this.#shown.set;
    const all = names.flatMap((name) => {
      const { members = [] } = points[name] ? {} : (this.#table.lines.find((line) => line.members.includes(name)) ?? {});
      const place = members.indexOf(name);
      const given = (one) => Boolean(points[one]);
      return [name, members.slice(0, Math.max(place, 0)).findLast(given), members.slice(place + 1).find(given)];
    });
    return [...new Set(all)];
  }

  #look(atFace) {
    this.#view = null;
    if (atFace && this.#shown) {
      const places = Object.values(this.#shown.full);
      const [xs, ys] = [0, 1].map((axis) => places.map((point) => point[axis]));
      const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
      this.#view = fitted(box, this.stage.clientWidth, this.stage.clientHeight, 40);
    }
    this.#draw();
  }

  #zoom(by, [x, y]) {
    if (!this.#view) return;
    const scale = Math.min(Math.max(this.#view.scale * by, 0.05), 60);
    const grown = scale / this.#view.scale;
    this.#view = { scale, x: x - (x - this.#view.x) * grown, y: y - (y - this.#view.y) * grown };
    this.#draw();
  }

  #hover(name) {
    if (name === this.#hovered) return;
    this.#hovered = name;
    this.#draw();
  }

  #setBoxing(on) {
    this.#boxing = on;
    this.#box = null;
    this.canvas.style.cursor = on ? 'crosshair' : '';
    this.#refresh();
  }

  // Pointer.

  #at(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  /** The point under the pointer; the selected one first, because closed lips and lids lie on each other. */
  #hit(screen) {
    if (!this.#shown || !this.#view) return '';
    const far = (name) => {
      const [x, y] = toScreen(this.#view, this.#place(name));
      return Math.hypot(x - screen[0], y - screen[1]);
    };
    const near = this.#names.map((name) => [far(name), name]).filter(([distance]) => distance <= REACH);
    near.sort(([a], [b]) => a - b);
    const chosen = near.find(([distance, name]) => name === this.#selected && distance <= near[0][0] + 2);
    return (chosen ?? near[0])?.[1] ?? '';
  }

  #press(event) {
    event.preventDefault();
    this.field.focus({ preventScroll: true });
    if (!this.#shown || !this.#view || this.#gesture || event.button > 1) return;
    const screen = this.#at(event);
    const from = toPicture(this.#view, screen);
    const name = event.button === 0 && !this.#boxing ? this.#hit(screen) : '';
    if (name) {
      this.#selected = name;
      this.#gesture = { names: this.#group(name, event.shiftKey), from, before: this.#set };
    } else if (event.button === 0 && this.#boxing) this.#gesture = { corner: from, before: this.#set };
    else this.#gesture = { pan: screen, view: this.#view };
    this.canvas.setPointerCapture(event.pointerId);
    this.#refresh();
  }

  #move(event) {
    const screen = this.#at(event);
    const gesture = this.#gesture;
    if (!gesture) {
      const name = this.#boxing ? '' : this.#hit(screen);
      this.canvas.style.cursor = this.#boxing ? 'crosshair' : name ? 'move' : 'grab';
      this.#hover(name);
      return;
    }
    if (gesture.pan) {
      const [dx, dy] = [screen[0] - gesture.pan[0], screen[1] - gesture.pan[1]];
      this.#view = { ...gesture.view, x: gesture.view.x + dx, y: gesture.view.y + dy };
      this.#draw();
      return;
    }
    const [x, y] = toPicture(this.#view, screen);
    if (gesture.names) {
      const by = [x - gesture.from[0], y - gesture.from[1]];
      if (!this.#draft && !by[0] && !by[1]) return;
      this.#draft = this.#moved(gesture.before, gesture.names, by);
    } else {
      const { width, height, source } = gesture.before;
      const inside = ([a, b]) => [Math.min(Math.max(a, 0), width - 1), Math.min(Math.max(b, 0), height - 1)];
      const [a, b] = [inside(gesture.corner), inside([x, y])];
      this.#box = [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
      const large = this.#box[2] - this.#box[0] > 4 && this.#box[3] - this.#box[1] > 4;
      this.#draft = large ? { ...template(width, height, this.#box, this.#table), source } : null;
    }
    this.#notice = '';
    this.#refresh();
  }

  #release(event) {
    const gesture = this.#gesture;
    this.#gesture = null;
    if (this.canvas.hasPointerCapture(event.pointerId)) this.canvas.releasePointerCapture(event.pointerId);
    const done = this.#draft && event.type === 'pointerup';
    if (done) this.#commit(this.#draft);
    else this.#draft = null;
    if (gesture?.corner) this.#setBoxing(!done);
    else this.#refresh();
  }

  #wheel(event) {
    event.preventDefault();
    event.stopPropagation();
    const lines = event.deltaMode === 1 ? 16 : 1;
    this.#zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015)), this.#at(event));
  }

  // Keyboard. Nothing that is pressed here reaches the graph.

  #key(event) {
    event.stopPropagation();
    const act = this.#action(event);
    if (!act) return;
    event.preventDefault();
    act();
  }

  #action(event) {
    const command = event.ctrlKey || event.metaKey;
    const key = event.key.toLowerCase();
    if (command) {
      if (key === 'z') return () => this.#step(event.shiftKey ? 1 : -1);
      return key === 'y' ? () => this.#step(1) : null;
    }
    const centre = [this.stage.clientWidth / 2, this.stage.clientHeight / 2];
    const far = event.shiftKey ? 5 : 1;
    const nudges = { arrowleft: [-far, 0], arrowright: [far, 0], arrowup: [0, -far], arrowdown: [0, far] };
    if (nudges[key]) return this.#selected && this.#shown ? () => this.#nudge(nudges[key]) : null;
    const actions = {
      escape: () => this.#escape(),
      pagedown: () => this.#select(1),
      pageup: () => this.#select(-1),
      delete: () => this.#deriveAgain(),
      backspace: () => this.#deriveAgain(),
      '+': () => this.#zoom(1.25, centre),
      '-': () => this.#zoom(0.8, centre),
    };
    return actions[key];
  }

  #nudge(by) {
    if (!this.#gesture) this.#commit(this.#moved(this.#set, [this.#selected], by));
  }

  #select(by) {
    if (!this.#shown) return;
    const names = this.#names;
    this.#selected = names[(names.indexOf(this.#selected) + by + names.length) % names.length] ?? names[0];
    this.#refresh();
  }

  #escape() {
    if (this.#gesture) {
      this.#gesture = this.#draft = this.#box = null;
      this.#refresh();
    } else if (this.#boxing) this.#setBoxing(false);
    else if (this.#now > 0 && !this.#leaving) {
      this.#leaving = true;
      this.#notice = 'Escape once more closes the editor without your changes.';
      this.#refresh();
    } else this.close();
  }
}
