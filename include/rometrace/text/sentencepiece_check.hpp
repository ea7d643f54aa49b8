#pragma once

#include <string>
#include <string_view>

namespace rometrace {

/// Checks what SentencePiece itself trusts in a serialised model: its normalisation rules are a double-array trie that
/// is walked without bounds, so a damaged file would be read past its end. `where` (the file) opens the messages.
/// Throws Error: not a protobuf message, rules that lead outside the file.
void check_sentencepiece_model(std::string_view model, const std::string& where);

}  // namespace rometrace
