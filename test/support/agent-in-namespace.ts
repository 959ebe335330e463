import { startTestAgent } from './agent.ts';

/** An agent in this process: says `ready`, then its first refusal, and ends with standard input. */
const [directory = ''] = process.argv.slice(2);
const agent = await startTestAgent({ directory });
agent.agent.events.on('refused', ({ reason }) => {
  console.log(JSON.stringify({ reason, counted: agent.agent.counters.refused(reason) }));
});
console.log('ready');
process.stdin.resume();
process.stdin.once('end', () => void agent.stop().then(() => process.exit(0)));
