"""Nodes of a Ray cluster on this machine, for tests: python tests/ray_nodes.py N [PROCESSORS of each].

Says the cluster's address, then obeys words on standard input: `kill` ends the newest node as a power cut would.
Everything ends when the input does.
"""

import os
import sys

NODE = {
    "num_cpus": 1,
    "object_store_memory": 80 * 2**20,
    "node_ip_address": "127.0.0.1",
    "include_dashboard": False,
}


def main():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.update({"RAY_worker_niceness": "0"})  # Ray's own 15 starves runs on a busy machine
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # the loopback's address stays as it is
    from ray.cluster_utils import Cluster

    node = NODE | {"num_cpus": int(sys.argv[2]) if len(sys.argv) > 2 else 1}
    cluster = Cluster(initialize_head=True, head_node_args=dict(node))
    nodes = [cluster.add_node(**node) for _ in range(int(sys.argv[1]) - 1)]
    print(cluster.address, flush=True)
    try:
        for line in sys.stdin:
            if line.strip() == "kill":
                cluster.remove_node(nodes.pop(), allow_graceful=False)
                print("killed", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
