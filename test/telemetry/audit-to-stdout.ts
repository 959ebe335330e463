import { SystemClock } from '../../src/clock.ts';
import { EventBus } from '../../src/events.ts';
import { openAudit } from '../../src/telemetry/audit.ts';
import { silentLog } from './observed.ts';

// Writes far more than a pipe holds and tells on standard error what became of it, as a process that nobody reads.
const events = new EventBus();
const audit = openAudit('-', { events, clock: new SystemClock(), log: silentLog, describePod: () => undefined });
const hold = setInterval(() => undefined, 1_000);
for (let i = 0; i < 20_000; i += 1) {
  events.publish('issued', { kind: 'jwt', spiffeId: 'spiffe://example.org/a', kid: `${i}`, notAfter: 0, renewal: false, durationMs: 1 });
  if (i % 1_000 === 0) await new Promise((resolve) => setImmediate(resolve));
}
await audit.close();
clearInterval(hold);
const { written, dropped } = audit.figures;
process.stderr.write(JSON.stringify({ written, dropped }));
process.exit(0);
