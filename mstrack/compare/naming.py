"""What datasets and their attributes are called in print."""

SPELLING = {
    "coesot": "COESOT",
    "depthtrack": "DepthTrack",
    "fe108": "FE108",
    "got10k": "GOT-10k",
    "lasher": "LasHeR",
    "rgbt234": "RGBT234",
    "synthetic": "the embedded benchmark",
    "visevent": "VisEvent",
    "vot-rgbd": "VOT-RGBD",
}
"""How datasets spell their names."""

ABBREVIATIONS = {
    "AIV": "abrupt illumination variation",
    "ARC": "aspect ratio change",
    "BC": "background clutter",
    "BOM": "background object motion",
    "CM": "camera motion",
    "DEF": "deformation",
    "FL": "frame lost",
    "FM": "fast motion",
    "FOC": "full occlusion",
    "HI": "high illumination",
    "HO": "heavy occlusion",
    "IV": "illumination variation",
    "LI": "low illumination",
    "LR": "low resolution",
    "MB": "motion blur",
    "NMO": "no motion",
    "NO": "no occlusion",
    "OE": "over-exposure",
    "OV": "out of view",
    "PO": "partial occlusion",
    "POC": "partial occlusion",
    "ROT": "rotation",
    "SA": "similar appearance",
    "SC": "scale change",
    "SV": "scale variation",
    "TC": "thermal crossover",
    "TO": "total occlusion",
    "VC": "viewpoint change",
}


def words(attribute: str, dataset: str = "") -> str:
    """What an attribute's name stands for, for example `low illumination`; the name itself where that is not known."""
    if attribute == "HO" and dataset == "lasher":
        return "hyaline occlusion"
    return ABBREVIATIONS.get(attribute, attribute.replace("_", " "))
