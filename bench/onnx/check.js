// node check.js REFERENCE MODEL.onnx...: runs every test image of `reference` through ONNX Runtime and counts equal predictions.
// Exit status 1 if some model does not run. Largest score first; the first of equal ones, as lowbit takes it.
const fs = require('fs');
const ort = require('onnxruntime-node');

function best(scores, from, classes) {
    let at = 0;
    for (let c = 1; c < classes; c++)
        if (scores[from + c] > scores[from + at]) at = c;
    return at;
}

function load(path) {
    const file = fs.readFileSync(path);
    const [count, c, h, w, classes] = [0, 4, 8, 12, 16].map(at => file.readInt32LE(at));
    if (!count) throw new Error(`${path}: no images`);
    const size = c * h * w, record = size + 4 + 4 * classes;
    const images = new Float32Array(count * size), labels = [], scores = new Int32Array(count * classes);
    for (let i = 0; i < count; i++) {
        const at = 20 + i * record;
        for (let p = 0; p < h * w; p++)
            for (let k = 0; k < c; k++) images[i * size + k * h * w + p] = file[at + p * c + k];
        labels.push(file.readInt32LE(at + size));
        for (let k = 0; k < classes; k++) scores[i * classes + k] = file.readInt32LE(at + size + 4 + 4 * k);
    }
    return {count, dims: [c, h, w], size, classes, images, labels, scores};
}

async function check(path, ref) {
    const session = await ort.InferenceSession.create(path, {intraOpNumThreads: 1, logSeverityLevel: 3});
    const batch = 250;
    let equal = 0, right = 0, exact = 0, sum = 0, largest = 0;
    for (let first = 0; first < ref.count; first += batch) {
        const mb = Math.min(batch, ref.count - first);
        const image = new ort.Tensor('float32', ref.images.subarray(first * ref.size, (first + mb) * ref.size), [mb, ...ref.dims]);
        const logits = (await session.run({image})).logits.data;
        for (let i = 0; i < mb; i++) {
            const got = best(logits, i * ref.classes, ref.classes), at = (first + i) * ref.classes;
            equal += got === best(ref.scores, at, ref.classes);
            right += got === ref.labels[first + i];
            let worst = 0;
            for (let k = 0; k < ref.classes; k++)
                worst = Math.max(worst, Math.abs(logits[i * ref.classes + k] - ref.scores[at + k] / 65536));
            exact += worst < 1e-3;
            sum += worst;
            largest = Math.max(largest, worst);
        }
    }
    console.log(`${path}: ${equal} of ${ref.count} predictions equal, top-1 ${(100 * right / ref.count).toFixed(2)} %, ` +
        `scores within 0.001 on ${exact} images, largest difference of a score ${largest.toPrecision(3)} ` +
        `(mean ${(sum / ref.count).toPrecision(3)})`);
}

(async () => {
    const ref = load(process.argv[2]);
    for (const path of process.argv.slice(3).filter(Boolean)) {
        try {
            await check(path, ref);
        } catch (error) {
            console.log(`${path}: ONNX Runtime does not run it: ${error.message.split('\n')[0]}`);
            process.exitCode = 1;
        }
    }
})();
