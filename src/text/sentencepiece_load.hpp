#pragma once

#include <sentencepiece_processor.h>

#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/tokenizer.hpp"

namespace rometrace {

/// Loads a serialised model; every way in which SentencePiece may complain becomes an Error.
inline void load_sentencepiece(sentencepiece::SentencePieceProcessor& processor, const std::string& model,
                               const std::string& where) {
  std::string complaint;
  try {
    const auto status = processor.LoadFromSerializedProto(model);
    if (status.ok()) return;
    complaint = status.ToString();
  } catch (const std::exception& error) {
    complaint = error.what();
  }
  throw Error(where + ": SentencePiece cannot load it (" + one_line(complaint) +
              "); expected a SentencePiece model; is the file complete?");
}

/// The pieces that SentencePiece splits `text` into, and their bytes of it. Throws Error.
inline std::vector<Token> pieces_of(const sentencepiece::SentencePieceProcessor& processor, std::string_view text) {
  sentencepiece::ImmutableSentencePieceText pieces;
  const auto status = processor.Encode(text, pieces.mutable_proto());
  if (!status.ok()) throw Error("text: SentencePiece cannot split it: " + one_line(status.ToString()));
  std::vector<Token> tokens(pieces.pieces_size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto piece = pieces.pieces(static_cast<int>(i));
    tokens[i] = {static_cast<std::int32_t>(piece.id()), piece.begin(), piece.end()};
  }
  return tokens;
}

}  // namespace rometrace
