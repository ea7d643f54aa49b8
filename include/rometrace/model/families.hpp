#pragma once

#include <string_view>
#include <vector>

namespace rometrace {

/// What is known of a family of models, in a few words for people. All texts live as long as the program.
struct KnownFamily {
  std::vector<std::string_view> names;  ///< what config.json has for model_type
  std::string_view checkpoints;         ///< public ones
  std::string_view layers;              ///< what its layers have that is honoured
  std::string_view corrupted;           ///< the module at whose output the subject's embeddings are corrupted
};

/// All families whose models can be traced, in the order of the documents.
std::vector<KnownFamily> known_families();

}  // namespace rometrace
