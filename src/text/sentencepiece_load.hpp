#pragma once

#include <sentencepiece_processor.h>

#include <exception>
#include <string>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

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

}  // namespace rometrace
