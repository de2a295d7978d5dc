"""Velocity networks: any module with ``forward(x, t, d, condition=None, guidance=None)`` will do; these are ours."""

from anystep.core.registry import Registry
from anystep.networks.base import NetworkConfig, VelocityNetwork
from anystep.networks.dit import DiT, DiTConfig, dit_preset
from anystep.networks.mlp import MLP, MLPConfig

#: Every network that a recipe can name. A new one is a file in this folder and a line here.
NETWORKS: Registry[type[NetworkConfig]] = Registry(
    {"dit": "anystep.networks.dit:DiTConfig", "mlp": "anystep.networks.mlp:MLPConfig"}
)

__all__ = [
    "MLP",
    "NETWORKS",
    "DiT",
    "DiTConfig",
    "MLPConfig",
    "NetworkConfig",
    "VelocityNetwork",
    "dit_preset",
]
