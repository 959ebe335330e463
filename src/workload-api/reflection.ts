import type { Server, ServerDuplexStream, ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { PackageDefinition } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';

type Exchange = ServerDuplexStream<object, object>;
type Handler = (stream: Exchange) => void;

/** Server reflection, v1 and v1alpha (Workload Endpoint §6: SHOULD), for what `packages` describe. */
export class Reflection {
  /** What the library would add to a server; it reads its files anew each time, so it is asked once. */
  readonly #services: readonly (readonly [ServiceDefinition, UntypedServiceImplementation])[];

  constructor(packages: PackageDefinition) {
    const services: [ServiceDefinition, UntypedServiceImplementation][] = [];
    new ReflectionService(packages).addToServer({
      addService: (definition, implementation) => {
        const handlers = Object.entries(implementation).map(([name, handler]) => [name, oneAtATime(handler as Handler)]);
        services.push([definition, Object.fromEntries(handlers)]);
      },
    });
    this.#services = services;
  }

  addToServer(server: Server): void {
    for (const [definition, handlers] of this.#services) server.addService(definition, handlers);
  }
}

/**
 * The library answers each question at once, whether or not the answers are read: a caller that only asks would fill the memory.
 * Here the next question is taken when the last answer is on its way.
 */
function oneAtATime(handler: Handler): Handler {
  return (stream) => {
    const write = (answer: object): boolean => stream.write(answer, () => stream.resume());
    const facade = {
      on: (name: string, listener: (value: object) => void) =>
        stream.on(name, (value: object) => {
          if (name === 'data') stream.pause();
          listener(value);
        }),
      write,
      end: () => stream.end(),
    };
    handler(facade as unknown as Exchange);
  };
}
