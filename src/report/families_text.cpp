#include "rometrace/report/families_text.hpp"

#include <algorithm>

#include "report/display_text.hpp"

namespace rometrace {

std::string render_families(std::span<const KnownFamily> families, int columns) {
  constexpr int kLeast = 60;
  const auto wide = std::max(kLeast, columns);
  const std::string indent(kSentenceIndent, ' ');
  std::string text;
  for (const auto& family : families) {
    std::string names;
    for (const auto name : family.names) names += (names.empty() ? "" : ", ") + std::string(name);
    text += wrap(names + ": " + std::string(family.checkpoints), wide, kSentenceIndent);
    const auto words = std::string(family.layers) + "; the subject is corrupted at " + std::string(family.corrupted);
    text += indent + wrap(words, wide - kSentenceIndent, kSentenceIndent);
  }
  return text;
}

}  // namespace rometrace
