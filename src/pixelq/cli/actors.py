"""`--ray` and `--actors` of the verbs that train, checked before torch is loaded."""

from pixelq.errors import PixelqError

__all__ = ["check_actors"]


def check_actors(ray: str | None, actors: int | None) -> None:
    """Refuse a cluster without actors.

    Args:
        ray: the cluster's address, if it was given.
        actors: how many, if that was given.

    Raises:
        PixelqError: names what is missing.
    """
    if ray is not None and actors is None:
        raise PixelqError(f"--ray {ray} needs --actors: how many processes of the cluster play")
