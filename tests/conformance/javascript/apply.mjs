// Server-side apply and the three kinds of patches, without generated types.

import { assert, config, core, k8s, namespace, refused, run } from './support.mjs';

const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const metadata = { name: 'applied-by-js', namespace };

function service(ports) {
    return { apiVersion: 'v1', kind: 'Service', metadata, spec: { selector: { a: 'b' }, ports } };
}

function apply(body, manager, force) {
    return objects.patch(
        body, undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply,
    );
}

async function appliedFieldsHaveOwners() {
    const made = await apply(service([{ port: 80, protocol: 'TCP' }]), 'js');
    assert.equal(made.spec.ports[0].targetPort, 80);
    assert.equal(made.metadata.managedFields[0].manager, 'js');
    const body = await refused(409, () =>
        apply(service([{ port: 80, protocol: 'TCP', targetPort: 8080 }]), 'other')
            .then(() => apply(service([{ port: 80, protocol: 'TCP', targetPort: 9090 }]), 'js')));
    assert.match(body.message, /^Apply failed with 1 conflict: conflict with "other"/);
    const forced = await apply(service([{ port: 80, protocol: 'TCP', targetPort: 9090 }]), 'js', true);
    assert.equal(forced.spec.ports[0].targetPort, 9090);
}

async function patchesMerge() {
    const merged = await objects.patch(
        { apiVersion: 'v1', kind: 'Service', metadata: { ...metadata, labels: { merge: 'yes' } } },
        undefined, undefined, undefined, undefined, k8s.PatchStrategy.MergePatch);
    assert.equal(merged.metadata.labels.merge, 'yes');
    const strategic = await objects.patch(
        { apiVersion: 'v1', kind: 'Service', metadata, spec: { ports: [{ port: 81, name: 'b' }, { port: 80, name: 'a' }] } },
        undefined, undefined, undefined, undefined, k8s.PatchStrategy.StrategicMergePatch);
    assert.deepEqual(strategic.spec.ports.map((p) => p.port), [81, 80]);
    assert.equal(strategic.spec.ports[1].targetPort, 9090);
    await core.deleteNamespacedService(metadata);
}

await run(appliedFieldsHaveOwners, patchesMerge);
