"""The words of e-mails, documents and reports: templates, localised figures, hostile text made safe, signed links."""
