// List and watch: an informer's cache follows creates, changes and deletes.

import { assert, config, configMap, core, k8s, namespace, run, until } from './support.mjs';

async function anInformerFollows() {
    const labelSelector = 'informed=yes';
    const list = () => core.listNamespacedConfigMap({ namespace, labelSelector });
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const informer = k8s.makeInformer(config, path, list, labelSelector);
    const seen = [];
    for (const verb of ['add', 'update', 'delete']) {
        informer.on(verb, (object) => seen.push(`${verb} ${object.metadata.name}`));
    }
    informer.on('error', (error) => assert.fail(String(error)));
    await core.createNamespacedConfigMap({ namespace, body: configMap('before', {}, { informed: 'yes' }) });
    await informer.start();
    await core.createNamespacedConfigMap({ namespace, body: configMap('after', {}, { informed: 'yes' }) });
    await core.createNamespacedConfigMap({ namespace, body: configMap('other', {}) });
    await until('both are there', () => informer.list(namespace)?.length === 2);
    const held = await core.readNamespacedConfigMap({ namespace, name: 'after' });
    held.data = { a: 'b' };
    await core.replaceNamespacedConfigMap({ namespace, name: 'after', body: held });
    await until('the change', () => informer.get('after', namespace)?.data?.a === 'b');
    for (const name of ['before', 'after', 'other']) {
        await core.deleteNamespacedConfigMap({ namespace, name });
    }
    await until('none is there', () => informer.list(namespace)?.length === 0);
    await informer.stop();
    assert.deepEqual(seen, [
        'add before', 'add after', 'update after', 'delete before', 'delete after',
    ]);
}

await run(anInformerFollows);
