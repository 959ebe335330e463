import { writeSync } from 'node:fs';
import { connectionAttacks } from './hostile-connections.ts';
import { floodAttacks } from './hostile-floods.ts';
import { messageAttacks } from './hostile-messages.ts';
import { streamAttacks } from './hostile-streams.ts';
import type { Target } from './hostile-wire.ts';

/**
 * One attack from a process of its own: `node hostile-attacker.ts NAME SOCKET [COUNT]`. Writes what it was told as one line of
 * JSON, and holds its connections until it is killed or its standard input ends.
 */
const attacks = { ...connectionAttacks, ...streamAttacks, ...floodAttacks, ...messageAttacks };

export type AttackName = keyof typeof attacks;

const [name = '', socketPath = '', count] = process.argv.slice(2);
const attack: ((target: Target) => Promise<object>) | undefined = attacks[name as AttackName];
if (attack === undefined) throw new Error(`no such attack: ${name}`);

// Whoever started it may be gone.
process.stdin.resume().on('end', () => process.exit());
const facts = await attack({ socketPath, ...(count === undefined ? {} : { count: Number(count) }) });
writeSync(1, `${JSON.stringify(facts)}\n`);
