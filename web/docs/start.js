// Swagger UI on the document that this server makes; nothing is fetched from or sent to anyone else.
SwaggerUIBundle({
  url: "../swagger/doc.json",
  dom_id: "#interface",
  deepLinking: true,
  docExpansion: "list",
  filter: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
