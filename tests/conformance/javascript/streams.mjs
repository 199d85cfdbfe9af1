// exec with exit code and terminal, and logs that are followed.

import { PassThrough, Readable } from 'node:stream';
import { assert, config, core, k8s, namespace, pod, run, until } from './support.mjs';

const name = 'talk-to-js';

async function aPodRuns() {
    await core.createNamespacedPod({ namespace, body: pod(name, ['sh', '-c', 'echo began; sleep 600']) });
    await until('the pod runs', async () =>
        (await core.readNamespacedPod({ namespace, name })).status.phase === 'Running');
}

/** Runs a command; gives its outputs and its Status. */
async function execute(command, input, tty = false) {
    const [stdout, stderr] = [new PassThrough(), new PassThrough()];
    const texts = { stdout: '', stderr: '' };
    stdout.on('data', (part) => { texts.stdout += part; });
    stderr.on('data', (part) => { texts.stderr += part; });
    const stdin = input === undefined ? null : Readable.from([input]);
    const status = await new Promise((done, failed) => {
        new k8s.Exec(config)
            .exec(namespace, name, 'main', command, stdout, tty ? null : stderr, stdin, tty, done)
            .catch(failed);
    });
    return { ...texts, status };
}

async function outputsAndExitCodes() {
    const ended = await execute(['sh', '-c', 'echo out; echo err >&2; exit 5']);
    assert.equal(ended.stdout, 'out\n');
    assert.equal(ended.stderr, 'err\n');
    assert.equal(ended.status.reason, 'NonZeroExitCode');
    assert.deepEqual(ended.status.details.causes, [{ reason: 'ExitCode', message: '5' }]);
    assert.equal((await execute(['true'])).status.status, 'Success');
}

async function inputArrives() {
    const ended = await execute(['sh', '-c', 'read line; echo got $line'], 'hello\n');
    assert.equal(ended.stdout, 'got hello\n');
}

async function logsAreFollowed() {
    const log = new PassThrough();
    let text = '';
    log.on('data', (part) => { text += part; });
    const request = await new k8s.Log(config).log(namespace, name, 'main', log, { follow: true });
    await until('the first line', () => text === 'began\n');
    request.abort();
    await core.deleteNamespacedPod({ namespace, name, gracePeriodSeconds: 0 });
}

await run(aPodRuns, outputsAndExitCodes, inputArrives, logsAreFollowed);
