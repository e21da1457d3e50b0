"""What imagededup and CleanVision find in a folder, as JSON: {tool: [[name, name], ...]} with every pair they report. Called by bench/data-copies.ts."""
import json
import os
import sys
from multiprocessing import freeze_support


def imagededup(folder, hasher, distance):
    found = hasher().find_duplicates(image_dir=folder, max_distance_threshold=distance, scores=False, num_enc_workers=0, num_dist_workers=0)
    return [[a, b] for a, others in found.items() for b in others if a < b]


def cleanvision(folder):
    from cleanvision import Imagelab

    lab = Imagelab(data_path=folder)
    lab.find_issues({"near_duplicates": {}, "exact_duplicates": {}}, n_jobs=1, verbose=False)
    sets = [group for kind in ("near_duplicates", "exact_duplicates") for group in lab.info.get(kind, {}).get("sets", [])]
    names = [[os.path.basename(path) for path in group] for group in sets]
    return [[a, b] for group in names for a in group for b in group if a < b]


def main():
    from imagededup.methods import DHash, PHash

    folder = sys.argv[1]
    answer = {
        "imagededup PHash, 8 bits": imagededup(folder, PHash, 8),
        "imagededup PHash, 10 (its default)": imagededup(folder, PHash, 10),
        "imagededup DHash, 8 bits": imagededup(folder, DHash, 8),
        "CleanVision": cleanvision(folder),
    }
    with open(sys.argv[2], "w") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    freeze_support()
    main()
