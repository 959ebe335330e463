import test, { type ExecutionContext } from 'ava';
import { Attestation, type Attestor } from '../../src/attestation/attestor.ts';
import { identifyCaller, releaseCaller, type Caller } from '../../src/attestation/caller.ts';
import { SignetError } from '../../src/errors.ts';
import { descriptorOf, openKernel } from '../../src/kernel.ts';
import { TestListener, startPeer, type TestProcess } from '../support/kernel-processes.ts';

const kernel = openKernel();
const { signal } = new AbortController();

async function connect(t: ExecutionContext): Promise<{ peer: TestProcess; caller: Caller }> {
  const listener = await TestListener.open(t);
  const peer = await startPeer(t, { socket: listener.path });
  const caller = identifyCaller(kernel, descriptorOf(await listener.next()), 1);
  t.teardown(() => releaseCaller(kernel, caller));
  return { peer, caller };
}

function attestor(attest: () => Promise<readonly string[]>): Attestor {
  return { name: 'test', attest };
}

test.serial('the selectors of all attestors are sorted, each once', async (t) => {
  const { caller } = await connect(t);
  const attestation = new Attestation([attestor(async () => ['c', 'a']), attestor(async () => ['b', 'a'])], kernel);
  t.deepEqual(await attestation.attest(caller, signal), ['a', 'b', 'c']);
});

test.serial('a failing attestor fails the whole with its own error', async (t) => {
  const { caller } = await connect(t);
  const failure = new SignetError('unavailable', 'no');
  const attestation = new Attestation([attestor(async () => ['a']), attestor(() => Promise.reject(failure))], kernel);
  t.is(await t.throwsAsync(attestation.attest(caller, signal)), failure);
});

test.serial('a caller that has ended is not asked about', async (t) => {
  const { peer, caller } = await connect(t);
  await peer.stop();
  let asked = false;
  const attestation = new Attestation([attestor(async () => [String((asked = true))])], kernel);
  t.is((await t.throwsAsync(attestation.attest(caller, signal), { instanceOf: SignetError }))?.code, 'caller_gone');
  t.false(asked);
});

test.serial('a caller that ends while it is attested gets no selectors', async (t) => {
  const { peer, caller } = await connect(t);
  const attestation = new Attestation([attestor(async () => (await peer.stop(), ['a']))], kernel);
  t.is((await t.throwsAsync(attestation.attest(caller, signal), { instanceOf: SignetError }))?.code, 'caller_gone');
});

test.serial('an aborted attestation ends with the reason of its signal', async (t) => {
  const { caller } = await connect(t);
  const reason = new Error('enough');
  const attestation = new Attestation([attestor(async () => t.fail() as never)], kernel);
  t.is(await t.throwsAsync(attestation.attest(caller, AbortSignal.abort(reason))), reason);
});
