"""Velocity networks: any module with ``forward(x, t, d, condition=None, guidance=None)`` will do; these are ours."""

from anystep.core.registry import Registry
from anystep.networks.base import NetworkConfig as NetworkConfig
from anystep.networks.base import VelocityNetwork as VelocityNetwork
from anystep.networks.dit import DiT as DiT
from anystep.networks.dit import DiTConfig as DiTConfig
from anystep.networks.dit import dit_preset as dit_preset
from anystep.networks.mlp import MLP as MLP
from anystep.networks.mlp import MLPConfig as MLPConfig

#: Every network that a recipe can name. A new one is a file in this folder and a line here.
NETWORKS: Registry[type[NetworkConfig]] = Registry({"dit": DiTConfig, "mlp": MLPConfig})
