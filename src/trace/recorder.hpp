#pragma once

#include <cstdint>
#include <vector>

#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/clean_run.hpp"

namespace rometrace {

struct RecordingShape {
  std::int64_t rows = 1;                            ///< S
  std::int64_t tokens = 0;                          ///< of the run
  std::int64_t first = 0;                           ///< of the outputs that are kept
  std::int64_t inputs = 0;                          ///< positions of the stream that are kept
  LayerRange neuron_layers = {};                    ///< whose neurons are kept
  std::vector<std::int64_t> neuron_positions = {};  ///< ascending: where
};

/// With nothing in it yet.
Recording empty_recording(const Decoder& model, const RecordingShape& shape, const std::vector<Site>& sites);

/// A tap that records what goes by.
class Recorder {
 public:
  Recorder(const Decoder& model, const RecordingShape& shape, const std::vector<Site>& sites);

  void operator()(Site site, std::int64_t layer, const at::Tensor& value);

  const Recording& recording() const { return recording_; }

 private:
  const Decoder& model_;
  Recording recording_;
  at::Tensor neuron_positions_;  // the recording's, on the model's device
};

}  // namespace rometrace
