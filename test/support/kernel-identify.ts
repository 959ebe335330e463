import { identifyCaller, refusalReasonOf } from '../../src/attestation/caller.ts';
import { messageOf } from '../../src/errors.ts';
import { descriptorOf, openKernel } from '../../src/kernel.ts';
import { TestListener } from './kernel-processes.ts';

// Listens at the path given, identifies one caller, says how that went. Ends with standard input.

process.stdin.on('end', () => process.exit(0)).resume();
const listener = await TestListener.open({ teardown: () => {} }, process.argv[2] ?? '');
console.log('listening');
const socket = await listener.next();
try {
  const { pid, uid } = identifyCaller(openKernel(), descriptorOf(socket), 1);
  console.log(JSON.stringify({ pid, uid }));
} catch (error) {
  console.log(JSON.stringify({ reason: refusalReasonOf(error), message: messageOf(error) }));
}
