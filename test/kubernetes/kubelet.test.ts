import test, { type ExecutionContext } from 'ava';
import { SystemClock } from '../../src/clock.ts';
import { Kubelet, type KubeletOptions } from '../../src/kubernetes/kubelet.ts';
import { podTrim } from '../../src/kubernetes/pod.ts';
import { FakeApi, answer } from '../support/kubernetes-api.ts';
import { rawPod, running } from '../support/kubernetes-pods.ts';

async function setUp(t: ExecutionContext, options: Partial<KubeletOptions> = {}): Promise<{ api: FakeApi; kubelet: Kubelet }> {
  const api = await FakeApi.start();
  api.token = 'abc';
  const at = { host: '127.0.0.1', port: api.port, token: { text: 'abc' }, ca: { text: api.pki.ca } };
  const kubelet = new Kubelet({ ...at, clock: new SystemClock(), trim: podTrim(), ...options });
  t.teardown(async () => {
    kubelet.close();
    await api.stop();
  });
  return { api, kubelet };
}

test('the kubelet\'s pods are trimmed like those of the API server', async (t) => {
  const { api, kubelet } = await setUp(t, { serverName: 'node-1' });
  api.objects = [rawPod({ status: running() }), { kind: 'rubbish' }];
  const pods = await kubelet.pods();
  t.is(pods.length, 1);
  t.like(pods[0], { name: 'web-1', serviceAccount: 'web' });
  t.like(api.seen[0], { method: 'GET', path: '/pods', headers: { authorization: 'Bearer abc' } });
});

test('the kubelet\'s certificate must be for the node', async (t) => {
  const { kubelet } = await setUp(t, { serverName: 'node-2' });
  await t.throwsAsync(kubelet.pods(), { message: /ERR_TLS_CERT_ALTNAME_INVALID/ });
});

test('a refusal in plain text is told in the kubelet\'s words', async (t) => {
  const { api, kubelet } = await setUp(t);
  api.faults.push((_seen, response) => (answer(response, 403, 'Forbidden (user=x, verb=get, resource=nodes, subresource(s)=[pods proxy])'), true));
  await t.throwsAsync(kubelet.pods(), { message: /\/pods: 403: Forbidden \(user=x, verb=get, resource=nodes, subresource\(s\)=\[pods proxy\]\)$/ });
});

test('an answer that is no PodList, or has too large a pod, is refused', async (t) => {
  const { api, kubelet } = await setUp(t, { limits: { bytes: 1_000 } });
  api.faults.push((_seen, response) => (answer(response, 200, { kind: 'Status' }), true));
  await t.throwsAsync(kubelet.pods(), { message: 'the kubelet\'s answer to GET /pods is not a PodList' });
  api.objects = Array.from({ length: 10 }, () => rawPod());
  t.is((await kubelet.pods()).length, 10, 'they are more than 1000 bytes together');
  api.objects = [rawPod(), rawPod({ labels: { app: 'x'.repeat(1_000) } })];
  await t.throwsAsync(kubelet.pods(), { message: /: one item is larger than 1000 bytes/ });
});

test('a host that is none is refused', (t) => {
  const options = { host: 'a b', token: { text: 'abc' }, ca: { path: '/nowhere' }, clock: new SystemClock(), trim: podTrim() };
  t.throws(() => new Kubelet(options), { message: 'kubelet: "a b" and 10250 are not an address and a port' });
});
