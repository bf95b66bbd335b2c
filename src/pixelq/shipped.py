"""Agents that come with pixelq, by name."""

from pathlib import Path

__all__ = ["RANDOM", "SHIPPED_FOLDER", "agent_path", "shipped_agents"]

RANDOM = "random"  # the agent that needs no file; `./random` is a run directory of that name
SHIPPED_FOLDER = Path(__file__).parent / "agents"


def shipped_agents() -> list[str]:
    """Names of the agents that come with pixelq, e.g. `breakout`."""
    return sorted(path.stem for path in SHIPPED_FOLDER.glob("*.safetensors"))


def agent_path(agent: Path | str) -> Path:
    """Where an agent is: the path itself, or the file of a shipped agent's name, if no such path exists.

    Args:
        agent: a path, or one of `shipped_agents`; `./breakout` is always a path.
    """
    path = Path(agent)
    if str(agent) in shipped_agents() and not path.exists():
        return SHIPPED_FOLDER / f"{agent}.safetensors"
    return path
