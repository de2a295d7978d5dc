"""What other methods do differently in short runs on small images, as the recipes for digits and 32 pixels are."""

from collections.abc import Mapping

from anystep.objectives import (
    ConsistencyDistillation,
    FlowMatching,
    ImprovedShortcut,
    LiveReflow,
    Objective,
    ProgressiveDistillation,
    Reflow,
)
from anystep.recipes.images import PIXELS

#: M = 32: each level of step sizes waits for the one below, and 128 has seven. t is continuous, so that 64 and 128
#: steps at d = 0 find no time that was never trained. An improved shortcut model of three equal terms has few examples
#: for the velocity, and one of scales up to 4.5 few at those near 1; both were worse in trials of one seed.
SHORT: Mapping[str, Objective] = {
    **PIXELS,
    "improved_shortcut": ImprovedShortcut(M=32, share=0.25, guided_share=0.125, guidance_max=3.0, time="uniform"),
    "flow_matching": FlowMatching(time="uniform"),
    "reflow": Reflow(pair_steps=32, time="uniform"),
    "progressive_distillation": ProgressiveDistillation(M=32, time="uniform"),
    "consistency_distillation": ConsistencyDistillation(M=32, time="uniform"),
    "live_reflow": LiveReflow(time="uniform"),
}
