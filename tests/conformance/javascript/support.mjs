// What every script of this folder needs: a client, and words for expectations.

import assert from 'node:assert/strict';

export const k8s = await import(process.env.CLIENT_NODE);
export const config = new k8s.KubeConfig();
config.loadFromDefault();
export const core = config.makeApiClient(k8s.CoreV1Api);
export const namespace = 'default';
const SOON = 30_000;

export { assert };

/** Waits until `condition()` gives something true, and returns it. */
export async function until(what, condition) {
    const end = Date.now() + SOON;
    for (;;) {
        const value = await condition();
        if (value) return value;
        assert(Date.now() < end, `not in ${SOON} ms: ${what}`);
        await new Promise((done) => setTimeout(done, 50));
    }
}

/** The Status that a call is refused with. */
export async function refused(code, call) {
    try {
        await call();
    } catch (error) {
        assert.equal(error.code, code, error.body);
        const body = JSON.parse(error.body);
        assert.equal(body.kind, 'Status');
        assert.equal(body.code, code);
        return body;
    }
    assert.fail('it was not refused');
}

/** Runs each function in order; the first that fails ends the program. */
export async function run(...functions) {
    for (const each of functions) {
        console.log(each.name);
        await each();
    }
    process.exit(0);
}

/** A ConfigMap. */
export function configMap(name, data, labels) {
    return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, labels }, data };
}

/** A pod of one container that runs `command`. */
export function pod(name, command) {
    return {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name },
        spec: {
            terminationGracePeriodSeconds: 1,
            containers: [{ name: 'main', image: 'busybox:1.36', command }],
        },
    };
}
