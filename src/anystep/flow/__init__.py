"""Pure tensor mathematics of few-step generative models. Imports torch, and of ours the checks and errors of `core`.

Conventions of the whole library: ``t = 0`` is noise, ``t = 1`` is data; ``d`` is the step that the network is asked
to make, ``d = 0`` the instantaneous velocity; guidance ``W = 1`` means none.
"""
