"""`mst info`: what a checkpoint or model is, in lines of text."""

import json

from torch import nn

from mstrack import checkpoint
from mstrack.models import create_model
from mstrack.models.cost import count_flops, count_parameters
from mstrack.registry import MODELS
