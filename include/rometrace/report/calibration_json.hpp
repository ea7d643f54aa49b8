#pragma once

#include <nlohmann/json_fwd.hpp>

#include "rometrace/report/batch_json.hpp"
#include "rometrace/study/calibration.hpp"

namespace rometrace {

/// All that the result of `rometrace calibrate` records.
struct CalibrationRecord {
  BatchRecord batch;        ///< what all traces have in common; its noise is that of factor 1, its seconds of all
  double subjects_std = 0;  ///< standard deviation of the subjects' embeddings: sigma of factor 1
  CalibrationResult result;
};

/// The record as an object of schema "rometrace/calibration/1" (share/rometrace/schema/calibration-1.schema.json).
/// Probabilities are fractions; what does not exist (the error of a mean over one fact) is null.
nlohmann::ordered_json to_json(const CalibrationRecord& calibration);

}  // namespace rometrace
