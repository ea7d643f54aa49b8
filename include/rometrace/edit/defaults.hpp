#pragma once

#include <cstdint>
#include <vector>

#include "rometrace/edit/rome.hpp"
#include "rometrace/model/config.hpp"

namespace rometrace {

/// Where and how a model is edited, unless something else is asked for.
struct EditDefaults {
  std::vector<std::int64_t> layers;  ///< one, but for MEMIT
  ValueOptions value;
  double lambda = 20000;  ///< MEMIT: C counts as so many keys
};

/// The published settings of a family (kmeng01/rome and memit for GPT-2, GPT-J and GPT-NeoX; zjunlp/EasyEdit for those
/// built like Llama), at the published depth of them, as a share of the layers: GPT-2 XL's layer 17 of 48, so the
/// eighth of a GPT-2 with 24. A stream narrower than 512 gets gentler ones, as the published decay holds delta back
/// there.
EditDefaults edit_defaults(const DecoderConfig& config, EditMethod method);

}  // namespace rometrace
