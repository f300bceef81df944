// Face points without a page: the curves that complete a reduced set, what makes a set a face, the JSON form.
//
// The same rules as moee_core/renderer/{points,curves,check}.py; a test compares the two on many sets. Names, template and
// numbers are not repeated here: `table` is face_points.json, which Python writes.
//
// A point is [x, y] in pixels of the picture, a set is { width, height, points: {name: [x, y]}, source: {name: number} }.

const SIDES = ['R', 'L'];
const middle = (a, b) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];

/** A set of points that is not a face; `names` are the points to blame. */
export class PointsError extends Error {
  constructor(reason, names = []) {
    super(reason);
    this.names = names;
  }
}

// The frame of a face: origin between the eyes, one eye distance as the unit.

export function frameOf(points) {
  const [right, left] = SIDES.map((side) => middle(points[`eye_${side}_outer`], points[`eye_${side}_inner`]));
  const distance = Math.max(Math.hypot(left[0] - right[0], left[1] - right[1]), 1e-6);
  return {
    origin: middle(right, left),
    right: [(left[0] - right[0]) / distance, (left[1] - right[1]) / distance],
    distance,
  };
}

export function toFace({ origin, right: [c, s], distance }, [x, y]) {
  const [dx, dy] = [(x - origin[0]) / distance, (y - origin[1]) / distance];
  return [dx * c + dy * s, dy * c - dx * s];
}

export function toImage({ origin, right: [c, s], distance }, [x, y]) {
  return [origin[0] + (x * c - y * s) * distance, origin[1] + (x * s + y * c) * distance];
}

// Curves. `knots` rise strictly.

function endSlope(step, nextStep, rise, nextRise) {
  const slope = ((2 * step + nextStep) * rise - step * nextRise) / (step + nextStep);
  if (slope * rise <= 0) return 0;
  return rise * nextRise < 0 && Math.abs(slope) > 3 * Math.abs(rise) ? 3 * rise : slope;
}

function slopesOf(steps, rises) {
  const n = steps.length;
  if (n === 1) return [rises[0], rises[0]];
  const slopes = [endSlope(steps[0], steps[1], rises[0], rises[1])];
  for (let i = 1; i < n; i++) {
    const [heavy, light] = [steps[i - 1] + 2 * steps[i], 2 * steps[i - 1] + steps[i]];
    const same = rises[i - 1] * rises[i] > 0;
    slopes.push(same ? (heavy + light) / (heavy / rises[i - 1] + light / rises[i]) : 0);
  }
  slopes.push(endSlope(steps[n - 1], steps[n - 2], rises[n - 1], rises[n - 2]));
  return slopes;
}

/** PCHIP: the cubic through the knots that never swings beyond them. */
export function monotone(knots, values, at) {
  const steps = knots.slice(1).map((knot, i) => knot - knots[i]);
  const rises = steps.map((step, i) => (values[i + 1] - values[i]) / step);
  const slopes = slopesOf(steps, rises);
  const x = Math.min(Math.max(at, knots[0]), knots.at(-1));
  let piece = 0;
  while (piece < steps.length - 1 && x >= knots[piece + 1]) piece++;
  const width = steps[piece];
  const t = (x - knots[piece]) / width;
  const rest = 1 - t;
  return (
    (1 + 2 * t) * rest * rest * values[piece] +
    t * rest * rest * width * slopes[piece] +
    t * t * (3 - 2 * t) * values[piece + 1] -
    t * t * rest * width * slopes[piece + 1]
  );
}

/** Like `monotone` along a bent axis: steep at both ends, as a lid or the edge of a lip. */
export function arch(knots, values, at, roundness) {
  const [first, last] = [knots[0], knots.at(-1)];
  const limit = Math.sin((roundness * Math.PI) / 2);
  const bent = (x) => Math.asin(Math.min(Math.max(((x - first) / (last - first)) * 2 - 1, -1), 1) * limit);
  return monotone(knots.map(bent), values, bent(at));
}

/** All points: those of `given` (irises too), and between them the derived ones. */
export function complete(given, table) {
  const frame = frameOf(given);
  const face = Object.fromEntries(Object.entries(given).map(([name, point]) => [name, toFace(frame, point)]));
  const derived = {};
  for (const { members, shares, curve } of table.lines)
    if (curve === 'along') completeAlong(members, face, derived);
    else completeLine(members, shares, curve, face, derived, table.roundness);
  if (!face.nose_tip) {
    const eyes = middle(face.eye_R_inner, face.eye_L_inner);
    derived.nose_tip = [0, 1].map((axis) => face.nose_base[axis] + 0.2 * (eyes[axis] - face.nose_base[axis]));
  }
  const back = Object.entries(derived).map(([name, point]) => [name, toImage(frame, point)]);
  return { ...given, ...Object.fromEntries(back) };
}

function completeLine(members, shares, curve, face, derived, roundness) {
  const known = members.filter((name) => face[name]);
  const knots = known.map((name) => face[name]);
  const direction = Math.sign(knots[1][0] - knots[0][0]);
  const runs = knots.slice(1).every((knot, i) => (knot[0] - knots[i][0]) * direction > 0);
  const order = direction < 0 ? [...knots].reverse() : knots;
  members.forEach((name, place) => {
    if (face[name]) return;
    const before = face[known.filter((one) => members.indexOf(one) < place).at(-1)];
    const after = face[known.find((one) => members.indexOf(one) > place)];
    const share = shares[place];
    const x = (1 - share) * before[0] + share * after[0];
    if (!runs) {
      // A line that turns back, as a misplaced point makes it.
      derived[name] = [x, (1 - share) * before[1] + share * after[1]];
      return;
    }
    const [xs, ys] = [0, 1].map((axis) => order.map((knot) => knot[axis]));
    derived[name] = [x, curve === 'arch' ? arch(xs, ys, x, roundness) : monotone(xs, ys, x)];
  });
}

/** The jaw turns under at the chin, so both coordinates are curves over the way along it. */
function completeAlong(members, face, derived) {
  const known = members.filter((name) => face[name]);
  const along = [0];
  for (let i = 1; i < known.length; i++) {
    const [a, b] = [face[known[i - 1]], face[known[i]]];
    along.push(along[i - 1] + Math.hypot(b[0] - a[0], b[1] - a[1]) + 1e-6);
  }
  members.forEach((name, place) => {
    if (face[name]) return;
    const before = known.findLastIndex((one) => members.indexOf(one) < place);
    const at = 0.5 * (along[before] + along[before + 1]);
    derived[name] = [0, 1].map((axis) => monotone(along, known.map((one) => face[one][axis]), at));
  });
}

// What makes a set a face.

/** Raises PointsError for a set that is no face; returns all of its points, derived ones too. */
export function check(set, table) {
  checkPoints(set, table);
  checkSource(set.source ?? {}, table);
  const full = complete(set.points, table);
  checkFace(full, table);
  return full;
}

/** The first thing wrong with a set as { reason, names }, or null. */
export function fault(set, table) {
  try {
    check(set, table);
    return null;
  } catch (error) {
    if (error instanceof PointsError) return { reason: error.message, names: error.names };
    throw error;
  }
}

function checkPoints({ points, width, height }, table) {
  const known = new Set([...table.full, ...table.iris]);
  for (const name of Object.keys(points))
    if (!known.has(name)) {
      const some = table.reduced.slice(0, 4).join(', ');
      throw new PointsError(`unknown point '${name.slice(0, 30)}'; the names are ${some}, ...`);
    }
  const missing = table.reduced.filter((name) => !Object.hasOwn(points, name));
  if (missing.length) {
    const of = `${missing.length} of ${table.reduced.length}`;
    throw new PointsError(`${of} points are missing, for example '${missing[0]}'`, missing);
  }
  for (const name of known) {
    if (!Object.hasOwn(points, name)) continue;
    const point = points[name];
    if (!Array.isArray(point) || point.length !== 2 || !point.every((v) => typeof v === 'number')) {
      const got = JSON.stringify(point).slice(0, 40);
      throw new PointsError(`point '${name}' must be two numbers, got ${got}`, [name]);
    }
    const [x, y] = point;
    if (!Number.isFinite(x) || !Number.isFinite(y))
      throw new PointsError(`point '${name}' is not finite: (${x}, ${y})`, [name]);
    if (!(x >= -0.5 && x <= width - 0.5 && y >= -0.5 && y <= height - 0.5)) {
      const at = `(${x.toFixed(1)}, ${y.toFixed(1)})`;
      throw new PointsError(`point '${name}' at ${at} is outside the ${width}x${height} picture`, [name]);
    }
  }
}

function checkSource(source, table) {
  for (const [name, value] of Object.entries(source)) {
    const low = table.source[name];
    if (low === undefined)
      throw new PointsError(`source: '${name.slice(0, 20)}' is not an expression; use names such as AU12L or open`);
    if (typeof value !== 'number' || !(value >= low && value <= table.max_strength)) {
      const got = JSON.stringify(value).slice(0, 20);
      throw new PointsError(`source: ${name} must be ${low} to ${table.max_strength}, got ${got}`);
    }
  }
}

function checkFace(points, table) {
  const frame = frameOf(points);
  if (frame.distance < table.min_eye_distance)
    throw new PointsError(
      `the eyes are ${frame.distance.toFixed(1)} pixels apart; at least ${table.min_eye_distance} are needed: ` +
        'use a larger picture',
      SIDES.flatMap((side) => [`eye_${side}_outer`, `eye_${side}_inner`]),
    );
  const at = Object.fromEntries(table.full.map((name) => [name, toFace(frame, points[name])]));
  if (middle(at.mouth_R, at.mouth_L)[1] < 0)
    throw new PointsError(
      "left and right are swapped at the eyes: R is the person's right, on the picture's left",
      SIDES.flatMap((side) => [`eye_${side}_outer`, `eye_${side}_inner`]),
    );
  for (const part of ['brow_*_middle', 'nose_*_ala', 'mouth_*', 'jaw_*_ear', 'jaw_*_angle', 'jaw_*_chin']) {
    const [right, left] = SIDES.map((side) => part.replace('*', side));
    if (at[right][0] >= at[left][0])
      throw new PointsError(
        `left and right are swapped: '${right}' lies to the right of '${left}' in the picture`,
        [right, left],
      );
  }
  const order = (upper, lower, what) => {
    if (at[upper][1] <= at[lower][1] + table.tolerance) return;
    const below = (at[upper][1] - at[lower][1]).toFixed(2);
    throw new PointsError(`${what}: '${upper}' lies ${below} eye distances below '${lower}'`, [upper, lower]);
  };
  for (const side of SIDES) {
    for (const part of ['upper', 'upper_outer', 'upper_inner'])
      order(`eye_${side}_${part}`, `eye_${side}_${part.replace('upper', 'lower')}`, 'eyelids are crossed');
    order(`brow_${side}_middle`, `eye_${side}_upper`, 'the brow is under the eye');
    const [inner, outer] = [`eye_${side}_inner`, `eye_${side}_outer`];
    const [x0, x1] = [at[inner][0], at[outer][0]];
    if (Math.abs(x0) >= Math.abs(x1) || Math.abs(x1 - x0) < 0.15)
      throw new PointsError(
        `eye ${side}: the corners are swapped or too close; 'inner' is the one at the nose`,
        [inner, outer],
      );
  }
  const lips = ['upper_outer', 'upper_inner', 'lower_inner', 'lower_outer'];
  for (const part of ['R', 'R_half', 'M', 'L_half', 'L'])
    for (let i = 1; i < lips.length; i++)
      order(`lip_${lips[i - 1]}_${part}`, `lip_${lips[i]}_${part}`, 'lines of the lips are crossed');
  order('eye_R_lower', 'nose_base', 'the nose is above the eyes');
  order('nose_base', 'lip_upper_outer_M', 'the mouth is above the nose');
  order('lip_lower_outer_M', 'chin', 'the chin is above the mouth');
}

// Other forms.

/** An average face in a box [x0, y0, x1, y1] from the hairline to the chin and from ear to ear. */
export function template(width, height, box, table) {
  const [x0, y0, x1, y1] = box ?? middleBox(width, height);
  const place = ([x, y]) => [(x0 + x1) / 2 + (x * (x1 - x0)) / 2, y0 + y * (y1 - y0)];
  const points = Object.fromEntries(Object.entries(table.template).map(([name, point]) => [name, place(point)]));
  return { width, height, points, source: {} };
}

/** The box that an empty text starts from where no face was found. */
export function middleBox(width, height) {
  const side = 0.5 * Math.min(width, height);
  const [x, y] = [width / 2, height * 0.47];
  return [x - side * 0.4, y - side * 0.55, x + side * 0.4, y + side * 0.45];
}

/** Centre and radius of an iris in pixels; from the shape of the eye when it was not marked. */
export function irisOf(full, side, table) {
  const { right, distance } = frameOf(full);
  const centre = full[`iris_${side}`];
  if (centre) {
    const edge = full[`iris_${side}_edge`];
    const radius = edge ? Math.hypot(edge[0] - centre[0], edge[1] - centre[1]) : table.iris_radius * distance;
    return [...centre, Math.max(radius, 1)];
  }
  const part = (name) => full[`eye_${side}_${name}`];
  const down = [-right[1], right[0]];
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
  const minus = (a, b) => [a[0] - b[0], a[1] - b[1]];
  const opening = Math.abs(dot(minus(part('lower'), part('upper')), down));
  const lids = middle(part('upper'), part('lower'));
  const along = dot(minus(middle(part('outer'), part('inner')), lids), right);
  const [x, y] = [0, 1].map((axis) => lids[axis] + right[axis] * along - down[axis] * 0.04 * opening);
  return [x, y, Math.max(table.iris_radius * distance, Math.min(0.5 * opening, 0.16 * distance), 1)];
}

/** A set from its JSON form, on the size it was noted for. Raises PointsError for what is not one. */
export function parse(text, table) {
  let data;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw new PointsError(`points are not JSON: ${String(error.message).split('\n')[0].slice(0, 100)}`);
  }
  const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
  if (!isObject(data) || data.format !== table.format) {
    const found = isObject(data) ? String(data.format ?? 'None') : typeof data;
    throw new PointsError(`points have the format '${found.slice(0, 30)}', expected '${table.format}'`);
  }
  const { width, height, points, source = {} } = data;
  if (![width, height].every((side) => Number.isInteger(side) && side > 0))
    throw new PointsError(
      `points need the width and height of their picture in pixels, got [${width}, ${height}]`.slice(0, 140),
    );
  if (!isObject(points) || !isObject(source))
    throw new PointsError('points need "points": {name: [x, y]}, and "source", when given, is {name: strength}');
  const set = { width, height, points, source };
  check(set, table);
  return set;
}

/** The same set on a picture of another size; another aspect ratio is refused. */
export function scaled(set, width, height) {
  if (set.width === width && set.height === height) return set;
  if (Math.abs((set.width * height) / (set.height * width) - 1) > 0.01)
    throw new PointsError(
      `points are for a ${set.width}x${set.height} picture, this one has ${width}x${height} pixels: mark it anew`,
    );
  const [byX, byY] = [width / set.width, height / set.height];
  const points = Object.entries(set.points).map(([name, [x, y]]) => [name, [x * byX, y * byY]]);
  return { ...set, width, height, points: Object.fromEntries(points) };
}

/** The JSON form of a set, one line, names in their order. */
export function serialise(set, table) {
  const round = (value) => Math.round(value * 100) / 100;
  const points = {};
  for (const name of [...table.full, ...table.iris])
    if (set.points[name]) points[name] = set.points[name].map(round);
  const data = { format: table.format, width: set.width, height: set.height, points };
  if (Object.keys(set.source ?? {}).length) data.source = set.source;
  return JSON.stringify(data);
}

/** The part of the face a point belongs to: what moves with it when a whole part is dragged. */
export function partOf(name) {
  const [first, second] = name.split('_');
  if (first === 'iris') return `eye_${second}`;
  if (first === 'brow' || first === 'eye') return `${first}_${second}`;
  if (first === 'lip' || first === 'mouth') return 'mouth';
  return first === 'chin' ? 'jaw' : first;
}

/**
 * What an editor begins with: { set, notice }. The text is the truth; where it cannot be read the notice says why, and
 * the set is `start` (a JSON form) or the template. `size` is the picture's [width, height], null while it is not known.
 */
export function beginning(text, size, start, table) {
  const read = (form) => {
    const set = parse(form, table);
    return size ? scaled(set, ...size) : set;
  };
  let notice = '';
  for (const form of [text, start].filter((one) => one?.trim()))
    try {
      return { set: read(form), notice };
    } catch (error) {
      if (!(error instanceof PointsError)) throw error;
      if (form === text) notice = error.message;
    }
  return { set: size ? template(...size, null, table) : null, notice };
}
